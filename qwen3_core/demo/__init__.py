"""A page that shows reranking at work: `python -m qwen3_core.demo`; docs/demo.md describes it."""
