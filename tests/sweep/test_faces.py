"""The library's face: what can be imported, that importing it is light, and what the functions give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sweep
import trainables
from sweep import ALL, Space, Stage, load_results, plan_sweep, run_sweep
from trainables.errors import ConfigError


@pytest.fixture(scope="module")
def space(tiny_models: dict[str, Path], sample_data: Path) -> Space:
    fixed = {"model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 2, "memory_dim": 16, "epochs": 2,
             "num_documents": 2, "segment_tokens": 32, "claims_per_page": 1}  # fmt: skip
    stages = (Stage(name="all", axes={"alpha": ALL, "allocation": ALL}),)
    axes = {"alpha": [0, 1.0], "allocation": ["partitioned"]}
    return Space(baseline=False, name="faces", title="", axes=axes, fixed=fixed, stages=stages)


@pytest.mark.parametrize("package", [sweep, trainables])
def test_every_name_of_a_face_can_be_imported_and_others_cannot(package) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None and name in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
    assert (Path(package.__file__).parent / "py.typed").is_file()


def test_importing_the_packages_imports_nothing_heavy() -> None:
    code = (
        "import sys, sweep, trainables\n"
        "assert sweep.__version__ and not [m for m in sys.modules if m.startswith(('sweep.', 'trainables.'))]\n"
        "from sweep import Best, Space, load_results, plan_sweep, run_sweep\n"
        "heavy = {'torch', 'ray', 'transformers', 'mlflow', 'pandas', 'pyarrow', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_sweep_is_planned_run_and_read_without_printing(space: Space, tmp_path: Path, capfd) -> None:
    planned = plan_sweep(space, tmp_path)
    assert planned.plan.num_to_run == 2 and planned.costs.flops > 0 and not list(tmp_path.iterdir())
    assert planned.to_dict()["trials_to_run"] == 2 and "2 trials" in str(planned)
    results = run_sweep(space, tmp_path, executor="local", settings=["epochs=3"])
    assert (results.exit_code, results.num_run, results.stopped) == (0, 2, "")
    assert results.counts == {"done": 2, "stopped": 0, "diverged": 0, "failed": 0, "missing": 0}
    assert list(results.rows["alpha"]) == [0.0, 1.0] and (results.rows["memory/nll"] > 0).all()
    assert [record["id"] for record in results.records] == list(results.rows["id"])
    assert all(len(record["curves"]["train/nll"]) == 3 for record in results.records)
    assert Path(results.paths["results"]).is_file() and Path(results.paths["plan"]).is_file()
    assert load_results(tmp_path / "faces").equals(results.rows) and load_results(tmp_path).equals(results.rows)
    again = run_sweep(space, tmp_path, executor="local", settings=["epochs=3"])
    assert (again.exit_code, again.num_run, again.counts["done"]) == (0, 0, 2)
    assert plan_sweep(space, tmp_path, settings=["epochs=3"]).plan.num_to_run == 0
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("report_process")
def test_a_run_starts_one_process_for_its_report_before_its_trials_and_leaves_none(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweep.report import beside
    from sweep.running.in_process import InProcess

    told, started, run = [], [], InProcess.run

    class Counted(beside.ReportProcess):
        def __init__(self) -> None:
            super().__init__()
            told.append("process")
            started.append(self._process)

    monkeypatch.setattr(beside, "ReportProcess", Counted)
    monkeypatch.setattr(InProcess, "run", lambda self, exchange: told.append("trials") or run(self, exchange))
    for _ in range(2):  # the second has nothing to do
        results = run_sweep(space, tmp_path, executor="local", report=True)
        assert results.conclusions and Path(results.paths["report"]).is_file() and not results.report_trouble
        assert told == ["process", "trials"] and started[0].returncode is not None


def test_mistakes_are_raised_as_the_command_says_them(space: Space, tmp_path: Path) -> None:
    for options, said in [
        ({"executor": "loca"}, "executor='loca': must be one of ray, local, did you mean 'local'"),
        ({"executor": "local", "address": "auto"}, "address='auto': has no meaning with --executor local"),
        ({"executor": "local", "gpus_per_trial": 0.5}, "gpus-per-trial=0.5: has no meaning"),
        ({"executor": "local", "max_concurrent": 2}, "max-concurrent=2"),
        ({"executor": "local", "spread_corpus": True}, "spread-corpus: is done by Ray, which --executor local does"),
        ({"gpus_per_trial": 2}, "gpus-per-trial=2: a pack computes on one GPU; give 1, a fraction"),
        ({"gpus_per_trial": 0, "device": "cuda"}, "gpus-per-trial=0: --device cuda needs a GPU for each pack"),
        ({"device": "tpu"}, "device='tpu': must be one of auto, cpu, cuda"),
        ({"settings": ["alhpa=1"]}, "did you mean 'alpha'"),
        ({"name": "a/b"}, "name='a/b'"),
        ({"stage": "al"}, "did you mean 'all'"),
    ]:
        with pytest.raises(ConfigError, match=said):
            run_sweep(space, tmp_path, **options)
    with pytest.raises(ConfigError, match="no sweep there"):
        load_results(tmp_path)
