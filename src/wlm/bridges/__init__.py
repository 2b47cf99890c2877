"""Bridges to other packages, which are imported when called."""
