"""How a search space is tried: plan, stages, Ray Tune, records, MLflow and report."""

__version__ = "0.1.0"
