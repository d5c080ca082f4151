"""What every part needs and none owns: argument checks, hints, progress bars, docstrings."""
