"""Make the sample data and both sample models now: `python -m trainables.sample`."""

from __future__ import annotations

import multiprocessing

from trainables.sample.configs import SAMPLE_MODELS
from trainables.sample.models import ensure_sample_model
from trainables.sample.world import ensure_sample_data


def main() -> None:
    """Make everything, the models side by side, and print where it is."""
    print(f"data          {ensure_sample_data()}", flush=True)
    names = list(SAMPLE_MODELS)
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(names)) as pool:
        # one progress bar for all: they take about as long as each other
        made = [pool.apply_async(ensure_sample_model, (name, name == names[0])) for name in names]
        for name, result in zip(names, made, strict=True):
            print(f"{name:13} {result.get()}", flush=True)


if __name__ == "__main__":
    main()
