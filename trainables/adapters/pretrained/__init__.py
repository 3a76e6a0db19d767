"""The language model as it comes, to compare with."""
