"""A memory whose entries a fixed vector of the document opens, trained with guidance (arXiv 2406.15996)."""
