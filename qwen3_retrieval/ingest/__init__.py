"""Fills a Milvus collection from a folder of files, and keeps it up to date.

`python -m qwen3_retrieval.ingest --help` is the command; docs/ingest.md describes it. The
collection itself is the source of truth: ids are derived from source and content. Whenever a run is
killed, the next one sees what is stored, adds what is missing and removes what is stale.
"""
