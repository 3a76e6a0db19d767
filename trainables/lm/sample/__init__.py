"""Tiny language models trained on the sample world, for trying and testing."""
