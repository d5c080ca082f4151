"""Milvus collections for Qwen3 vectors: what they must look like, filters, indexes."""

from qwen3_core.milvus.collection import check_text_lengths
from qwen3_core.milvus.filters import field, literal

__all__ = ["check_text_lengths", "field", "literal"]
