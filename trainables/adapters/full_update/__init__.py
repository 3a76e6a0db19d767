"""Training all weights of a language model instead of a memory."""
