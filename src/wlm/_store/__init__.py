"""A fit in ``uns``: written, sealed, read back, loaded from a file."""
