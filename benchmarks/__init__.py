"""The measured claims, each against a plain rival, in one run."""
