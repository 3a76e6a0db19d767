"""Low-rank updates of the linear maps above one block (LoRA, arXiv 2106.09685)."""
