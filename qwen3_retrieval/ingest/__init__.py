"""Fills a Milvus collection from a folder of files, and keeps it up to date.

`python -m qwen3_retrieval.ingest --help` is the command; docs/ingest.md says how it behaves. The
collection itself is the truth: ids follow from source and content, so that whatever moment a run
was killed at, the next one sees what is there, adds what is missing and removes what is stale.
"""
