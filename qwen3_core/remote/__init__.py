"""Embedder and reranker with the model on a server.

`RemoteEmbedder` and `RemoteReranker` take and return the same as `qwen3_core.Embedder` and
`qwen3_core.Reranker`. `Server` describes a server that needs more than the defaults.
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
