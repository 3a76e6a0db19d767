"""Make the sample data and both sample models now: `python -m trainables.lm.sample`."""

from __future__ import annotations

from trainables.data.sample.world import ensure_sample_data
from trainables.lm.sample.configs import SAMPLE_MODELS
from trainables.lm.sample.models import ensure_sample_models


def main() -> None:
    """Make everything and print where it is."""
    print(f"data          {ensure_sample_data()}", flush=True)
    for name, folder in ensure_sample_models(list(SAMPLE_MODELS)).items():
        print(f"{name:13} {folder}", flush=True)


if __name__ == "__main__":
    main()
