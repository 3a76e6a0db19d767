"""Vectors before every text instead of changed weights (prompt tuning, arXiv 2104.08691)."""
