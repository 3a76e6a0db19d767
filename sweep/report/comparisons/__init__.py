"""Paired comparisons of trials, and the study's own figures beside them."""
