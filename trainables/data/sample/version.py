"""The version of the sample world, and of the sample models that are trained on it."""

SAMPLE_VERSION = "1"
"""Changes whenever the sample world or the sample models change: it is part of their cache keys."""
