"""What the packages alone take: Ray Tune with trials that load a model and end, and a run of MLflow for each.

    python -m benchmarks.bare_tune MODEL TRIALS FOLDER

Nothing of this project runs in it: no data, no training, no questions, no records, no report.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune

AT_A_TIME = 2
VALUES = 60
"""Metrics of a run, about as many as a trial of ours has."""


class Loads(tune.Trainable):  # type: ignore[misc]
    """Loads a model and is done."""

    def setup(self, config: dict[str, Any]) -> None:
        """Import what loads it, and load it."""
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(config["model"])

    def step(self) -> dict[str, Any]:
        """End."""
        return {"parameters": self.model.num_parameters(), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Keep nothing; Tune asks for a checkpoint when a trial ends."""
        return {}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let the next trial have this process."""
        return True


def main(model: str, trials: int, folder: Path) -> None:
    """Run so many trials and tell MLflow of each."""
    ray.init(num_cpus=AT_A_TIME, include_dashboard=False, log_to_driver=False)
    found = tune.Tuner(
        Loads,
        param_space={"model": model, "number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=AT_A_TIME),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    for result in found:
        with mlflow.start_run():
            mlflow.log_metrics({f"value_{i}": float(result.metrics["parameters"]) for i in range(VALUES)})
    ray.shutdown()
    if found.errors:
        raise found.errors[0]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).resolve())
