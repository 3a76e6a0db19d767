"""How a sweep is run, and the executor that this asks for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sweep.running.executor import Executor, WorkerSettings
from sweep.tracking.address import check_tracking_uri
from trainables.errors import ConfigError, nearest
from trainables.node.machine import check_device, may_have_gpu

EXECUTORS = ("ray", "local")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a sweep is run; what is run is the space's matter.

    Attributes:
        executor: `ray`, or `local`: packs one after the other in this process, without Ray.
        stage: the last stage to run; None for all.
        retry_failed: run failed trials again.
        device: auto, cpu or cuda.
        pack_size: trials in a pack at most; None to choose.
        address: of the Ray cluster; None for RAY_ADDRESS or a Ray of our own.
        gpus: GPUs of a pack, at most one, may be a fraction; 0 for the CPU; None for one where there are any. Ray only.
        cpus: CPUs of a pack, also torch's threads; None for 1 with Ray, and for torch's own number in this process.
        max_concurrent: packs at once; None for as many as fit. Ray only.
        tracking_uri: MLflow's address; None for MLFLOW_TRACKING_URI, else a SQLite file in the storage.
        experiment: MLflow experiment.
        cache_bytes: limit of each node's cache of hidden states; None for half of the disk (`HiddenCache`).
        spread_corpus: have Ray Data tokenise and hash large corpora on all nodes, to equal results. Ray only.
        lock: keep a second run on the same sweep away; False for a storage that has neither locks nor conditional puts.
        report: write the report at the end.
        verbose: say every trial that ends and every failure, with its traceback.
        notify: a command for the end, a new kind of failure and a choice; empty for none.
    """

    executor: str = "ray"
    stage: str | None = None
    retry_failed: bool = False
    device: str = "auto"
    pack_size: int | None = None
    address: str | None = None
    gpus: float | None = None
    cpus: float | None = None
    max_concurrent: int | None = None
    tracking_uri: str | None = None
    experiment: str | None = None
    cache_bytes: int | None = None
    spread_corpus: bool = False
    lock: bool = True
    report: bool = False
    verbose: bool = False
    notify: str = ""

    def __post_init__(self) -> None:
        """Refuse what means nothing.

        Raises:
            ConfigError: an unknown executor or device, an address that MLflow has no store for, or an option that the
                executor has no use for.
        """
        for name, value, known in (("executor", self.executor, EXECUTORS), ("device", self.device, DEVICES)):
            if value not in known:
                raise ConfigError(f"{name}={value!r}: must be one of {', '.join(known)}{nearest(value, known)}")
        if self.gpus is not None and not 0 <= self.gpus <= 1:
            raise ConfigError(
                f"gpus-per-trial={self.gpus:g}: a pack computes on one GPU; give 1, a fraction of it to share it, or 0"
            )
        if self.gpus == 0 and self.device == "cuda":
            raise ConfigError("gpus-per-trial=0: --device cuda needs a GPU for each pack; leave one of them out")
        if self.device == "cuda" and not self.address and not os.environ.get("RAY_ADDRESS"):
            check_device(self.device, may_have_gpu())
        if self.tracking_uri:
            check_tracking_uri(self.tracking_uri)
        if self.executor == "local":
            for name, given in (("address", self.address), ("gpus-per-trial", self.gpus)):
                if given is not None:
                    raise ConfigError(f"{name}={given!r}: has no meaning with --executor local; leave it out")
            if self.max_concurrent not in (None, 1):
                raise ConfigError(
                    f"max-concurrent={self.max_concurrent}: --executor local runs one pack at a time; leave it out"
                )
            if self.spread_corpus:
                raise ConfigError("spread-corpus: is done by Ray, which --executor local does without; leave it out")

    @property
    def starting(self) -> str:
        """What comes before the first trial, in words."""
        if self.executor == "local":
            return "running in this process"
        address = self.address or os.environ.get("RAY_ADDRESS")
        return f"attaching to the Ray cluster ({address})" if address else "starting Ray"


def executor_for(options: RunOptions) -> Executor:
    """Return the executor that is asked for; only Ray's imports Ray."""
    settings = WorkerSettings(options.device, options.cache_bytes, options.spread_corpus)
    if options.executor == "local":
        from sweep.running.in_process import InProcess

        return InProcess(settings, None if options.cpus is None else max(1, int(options.cpus)))
    from sweep.running.ray_environment import set_environment

    set_environment(options.address)
    from sweep.running.ray_tune import PackResources, RayTune

    resources = PackResources(options.cpus or 1.0, options.gpus, options.max_concurrent)
    return RayTune(settings, resources, options.address)
