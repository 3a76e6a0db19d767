"""How much of a document a model writes by itself, given its title and first words."""
