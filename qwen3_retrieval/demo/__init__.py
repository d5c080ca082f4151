"""A page that shows reranking at work: `python -m qwen3_retrieval.demo` (docs/demo.md)."""
