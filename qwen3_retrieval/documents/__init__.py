"""Reads and cuts documents, in the same way for ingest, evaluation, demo and examples.

`corpus` finds the files, `reading` splits them into sections, `cutting` splits these into passages.
"""
