"""The added memory: its module, its optimiser, and which entries a document may use."""
