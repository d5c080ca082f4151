"""Helpers for all packages: argument checks, hints, progress bars, docstrings."""
