"""What the LlamaIndex tests share: the bundled models, a small corpus, and a recorder of events."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.openai_like import OpenAILike
from llama_index.vector_stores.milvus import MilvusVectorStore

from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, milvus_kwargs
from tests.openai_server import OpenAIServer

TEXTS = [
    "Milvus stores inserted data in segments, which it writes to object storage as binlogs.",
    "An HNSW index is a graph in which each vector is linked to its near neighbours.",
    "Strong consistency makes a search see every row that was inserted before it.",
    "A reranker reads the query and a passage together and judges whether they fit.",
    "Matryoshka vectors may be cut to their first dimensions and normalised again.",
    "The Eiffel Tower in Paris was finished in 1889 and is 330 metres high.",
    "Bread rises because yeast turns sugar into carbon dioxide.",
    "The moon moves the tides of the sea by its gravity.",
]


class Recorder(BaseEventHandler):
    """Keeps the events of LlamaIndex's instrumentation in the order they came."""

    events: list[BaseEvent]

    def handle(self, event: BaseEvent, **kwargs: object) -> None:
        self.events.append(event)

    def names(self, prefix: str) -> list[str]:
        """Class names of the events so far whose name begins with `prefix`."""
        names = (event.class_name() for event in self.events)
        return [name for name in names if name.startswith(prefix)]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    handler = Recorder(events=[])
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture(scope="session")
def embed_model() -> Qwen3Embedding:
    return Qwen3Embedding(model="tiny")


@pytest.fixture(scope="session")
def reranker() -> Qwen3Rerank:
    model = Qwen3Rerank(model="tiny")
    model.postprocess_nodes(scored(text_nodes()), query_str="load it, for all tests to share")
    return model


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would load a model, or take one that is loaded, fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model was asked for")

    monkeypatch.setattr("qwen3_core.engine.local.open_engine", refuse)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def llm(server: OpenAIServer) -> OpenAILike:
    """A chat model on the local server."""
    return OpenAILike(
        model="any",
        api_base=server.url,
        api_key="any",
        is_chat_model=True,
        context_window=32_768,
        max_retries=0,
        reuse_client=False,
    )


def text_nodes(texts: list[str] = TEXTS) -> list[TextNode]:
    return [
        TextNode(id_=f"node-{i}", text=text, metadata={"number": i}) for i, text in enumerate(texts)
    ]


def scored(nodes: list[TextNode]) -> list[NodeWithScore]:
    """The nodes as a first stage would hand them over, with falling scores."""
    return [NodeWithScore(node=node, score=0.9 - i / 100) for i, node in enumerate(nodes)]


def open_store(path: Path, embed_model: Qwen3Embedding, **options) -> MilvusVectorStore:
    return MilvusVectorStore(**milvus_kwargs(embed_model, uri=path, **options))


def build_index(
    path: Path, embed_model: Qwen3Embedding, texts: list[str] = TEXTS
) -> VectorStoreIndex:
    """The texts in a new Milvus Lite collection."""
    storage = StorageContext.from_defaults(vector_store=open_store(path, embed_model))
    return VectorStoreIndex(text_nodes(texts), storage_context=storage, embed_model=embed_model)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, embed_model: Qwen3Embedding) -> Path:
    """A Milvus Lite file that holds the corpus; tests do not change it."""
    path = tmp_path_factory.mktemp("milvus") / "corpus.db"
    build_index(path, embed_model)
    return path


@pytest.fixture
def fresh_index(tmp_path: Path, embed_model: Qwen3Embedding) -> VectorStoreIndex:
    """The corpus on a Milvus Lite server of its own.

    For async calls: Lite disconnects clients that are idle for long, from which pymilvus's async
    client does not always recover, and all clients of one file share a connection.
    """
    return build_index(tmp_path / "fresh.db", embed_model)


@pytest.fixture
def index(corpus: Path, embed_model: Qwen3Embedding) -> VectorStoreIndex:
    """The corpus, opened anew."""
    store = open_store(corpus, embed_model, use_async_client=False)
    return VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
