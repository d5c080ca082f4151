"""Milvus collections for Qwen3 vectors: schema checks, filters, indexes."""

from qwen3_core.milvus.filters import field, literal
from qwen3_core.milvus.rebuild import rebuild_index

__all__ = ["field", "literal", "rebuild_index"]
