"""Tasks of lm-evaluation-harness, put to the plain model with the memory attached."""
