"""Two-stage retrieval with Qwen3-Embedding and Qwen3-Reranker in LangChain.

`Qwen3Embeddings` embeds for a vector store, `Qwen3Reranker` ranks retrieved documents,
`Qwen3TwoStageRetriever` does both as one retriever, and `create_rag_chain` answers over it.
`open_milvus` opens a suitable Milvus vector store, `milvus_kwargs` returns the arguments for one,
and `Server` holds the settings of a model server.

Importing this package loads neither torch nor transformers; the first use of a model does.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from qwen3_core import __version__
from qwen3_core.common.extras import how_to_install
from qwen3_core.common.hints import check_class

if TYPE_CHECKING:
    from langchain_qwen3.embeddings import Qwen3Embeddings
    from langchain_qwen3.milvus import milvus_kwargs, open_milvus
    from langchain_qwen3.rag import Citation, RagAnswer, create_rag_chain
    from langchain_qwen3.reranker import Qwen3CrossEncoder, Qwen3Reranker, RankedDocument
    from langchain_qwen3.retriever import Qwen3TwoStageRetriever
    from qwen3_core import Server, TruncationWarning
    from qwen3_core.ranking import Ranked

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

# Loaded on first access: some modules of older langchain-core releases import transformers, and
# users of embeddings alone need not wait for the rest.
_HOMES = {
    "Citation": "rag",
    "Qwen3CrossEncoder": "reranker",
    "Qwen3Embeddings": "embeddings",
    "Qwen3Reranker": "reranker",
    "Qwen3TwoStageRetriever": "retriever",
    "RagAnswer": "rag",
    "Ranked": "reranker",
    "RankedDocument": "reranker",
    "Server": "_settings",
    "TruncationWarning": "_settings",
    "create_rag_chain": "rag",
    "milvus_kwargs": "milvus",
    "open_milvus": "milvus",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first access (PEP 562)."""
    if name not in _HOMES:
        check_class(__name__, name)
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        # If langchain-core is installed, another release of it lacks the module: that error stands.
        if not str(error.name).startswith("langchain_core") or find_spec("langchain_core"):
            raise
        msg = f"langchain-core is not installed: {how_to_install('langchain')}"
        raise ImportError(msg) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
