"""Qwen3 embedding and reranking models in LlamaIndex.

Importing this package loads neither torch nor transformers; the first use of a model does.
"""

from typing import Any

from qwen3_core import Server, TruncationWarning, __version__
from qwen3_core.common.extras import how_to_install
from qwen3_core.common.hints import no_attribute

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    msg = f"llama-index-core is not installed: {how_to_install('llama-index')}"
    raise ImportError(msg) from error

from llama_index_qwen3.embedding import Qwen3Embedding
from llama_index_qwen3.milvus import milvus_kwargs, open_milvus
from llama_index_qwen3.query_engine import (
    CitedPassages,
    TwoStageQueryEngine,
    two_stage_query_engine,
)
from llama_index_qwen3.rerank import Qwen3Rerank
from llama_index_qwen3.retriever import Qwen3TwoStageRetriever

__all__ = [
    "CitedPassages",
    "Qwen3Embedding",
    "Qwen3Rerank",
    "Qwen3TwoStageRetriever",
    "Server",
    "TruncationWarning",
    "TwoStageQueryEngine",
    "__version__",
    "milvus_kwargs",
    "open_milvus",
    "two_stage_query_engine",
]


def __getattr__(name: str) -> Any:
    """For a name from LangChain's package, raise an error with the name here (PEP 562)."""
    no_attribute(__name__, name)
