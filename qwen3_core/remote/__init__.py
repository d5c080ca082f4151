"""The same embedder and reranker, with the model on a server.

`RemoteEmbedder` and `RemoteReranker` take and return what `qwen3_core.Embedder` and
`qwen3_core.Reranker` do. `Server` says what the server is, where that is not plain.
"""

from qwen3_core.remote.embedder import RemoteEmbedder
from qwen3_core.remote.errors import SelfCheckError, ServerError, ServerWarning
from qwen3_core.remote.reranker import TEMPLATE_FILE, RemoteReranker
from qwen3_core.remote.server import Server

__all__ = [
    "TEMPLATE_FILE",
    "RemoteEmbedder",
    "RemoteReranker",
    "SelfCheckError",
    "Server",
    "ServerError",
    "ServerWarning",
]
