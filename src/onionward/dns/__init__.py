"""One module per kind of resolver management."""
