"""The Qwen3 embedding and reranking models, without any framework.

`Embedder` turns texts into vectors, `Reranker` scores documents against a query. Both run on one
packed forward pass (`qwen3_core.model.encoder`). `RemoteEmbedder` and `RemoteReranker` do the same
with the model on a server. Importing this package loads neither torch nor transformers; the first
use of a model in this process does.
"""

from qwen3_core._version import __version__
from qwen3_core.common.validation import QueryError
from qwen3_core.embedder import Embedder
from qwen3_core.engine.worker import EngineClosedError, Stats
from qwen3_core.ranking import Ranked
from qwen3_core.remote import (
    RemoteEmbedder,
    RemoteReranker,
    SelfCheckError,
    Server,
    ServerError,
)
from qwen3_core.reranker import Reranker
from qwen3_core.tokenizer import TruncationWarning

__all__ = [
    "Embedder",
    "EngineClosedError",
    "QueryError",
    "Ranked",
    "RemoteEmbedder",
    "RemoteReranker",
    "Reranker",
    "SelfCheckError",
    "Server",
    "ServerError",
    "Stats",
    "TruncationWarning",
    "__version__",
]
