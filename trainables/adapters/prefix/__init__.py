"""Keys and values before every text in every block instead of changed weights (prefix tuning, arXiv 2101.00190)."""
