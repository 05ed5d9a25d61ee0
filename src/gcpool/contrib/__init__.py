"""Connection managers, one module per kind of connection."""
