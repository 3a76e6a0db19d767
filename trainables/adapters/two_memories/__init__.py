"""A memory for each kind of data: documents and templates (open in note 000)."""
