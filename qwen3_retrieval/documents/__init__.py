"""One reading and one cutting of documents, for the ingest, the evaluation, the demo and examples.

`corpus` finds the files, `reading` makes sections of them, `cutting` makes passages of those.
"""
