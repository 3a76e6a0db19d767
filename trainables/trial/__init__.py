"""A trial as a value: its fields, its ids, and how it travels to a worker."""
