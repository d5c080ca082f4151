"""Two-stage retrieval with Qwen3-Embedding and Qwen3-Reranker in LangChain.

`Qwen3Embeddings` embeds for a vector store, `Qwen3Reranker` ranks retrieved documents,
`Qwen3TwoStageRetriever` does both as one retriever, and `create_rag_chain` answers over it.
`open_milvus` opens a suitable Milvus vector store, `milvus_kwargs` returns the arguments for one,
and `Server` holds the settings of a model server.

Importing this package loads neither torch nor transformers; the first use of a model does.
"""

from typing import Any

from qwen3_core import Ranked, Server, TruncationWarning, __version__
from qwen3_core.common.extras import how_to_install
from qwen3_core.common.hints import no_attribute

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    msg = f"langchain-core is not installed: {how_to_install('langchain')}"
    raise ImportError(msg) from error

from langchain_qwen3.embeddings import Qwen3Embeddings
from langchain_qwen3.milvus import milvus_kwargs, open_milvus
from langchain_qwen3.rag import Citation, RagAnswer, create_rag_chain
from langchain_qwen3.reranker import Qwen3CrossEncoder, Qwen3Reranker, RankedDocument
from langchain_qwen3.retriever import Qwen3TwoStageRetriever

__all__ = [
    "Citation",
    "Qwen3CrossEncoder",
    "Qwen3Embeddings",
    "Qwen3Reranker",
    "Qwen3TwoStageRetriever",
    "RagAnswer",
    "Ranked",
    "RankedDocument",
    "Server",
    "TruncationWarning",
    "__version__",
    "create_rag_chain",
    "milvus_kwargs",
    "open_milvus",
]


def __getattr__(name: str) -> Any:
    """For a name from LlamaIndex's package, raise an error with the name here (PEP 562)."""
    no_attribute(__name__, name)
