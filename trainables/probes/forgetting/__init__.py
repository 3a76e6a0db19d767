"""What memorising costs: texts and claims that were not memorised."""
