"""Commands for whole corpora: `ingest`, `evaluation` and `demo`.

They build on the framework packages: each loads `langchain_qwen3` or `llama_index_qwen3`, whichever
is installed or requested.
"""
