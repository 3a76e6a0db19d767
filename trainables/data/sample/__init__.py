"""A generated world and two tiny language models trained on it, for trying and testing without a network."""
