"""`Qwen3Embeddings`: embeds queries and documents for any LangChain vector store."""

from pathlib import Path
from typing import Self

from langchain_core.embeddings import Embeddings
from pydantic import Field, PrivateAttr, model_validator

from langchain_qwen3._settings import CheckpointSettings, check_question
from qwen3_core.common.docstrings import DESCRIPTIONS, fields_documented
from qwen3_core.components import EmbedderMethods, make_embedder, settings_of
from qwen3_core.embedder import Embedder
from qwen3_core.remote import RemoteEmbedder
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL


@fields_documented
class Qwen3Embeddings(CheckpointSettings, EmbedderMethods, Embeddings):
    """Qwen3-Embedding as LangChain embeddings.

    Queries have an instruction, documents do not. Vectors have length 1, so that inner product
    equals cosine similarity. The async methods do not block the event loop, and concurrent calls
    share forward passes.

    The vector of a text depends on the settings and on whether it is a query or a document, so a
    cache must separate these. `CacheBackedEmbeddings` does so only with a `namespace` that names
    model, dimensions and instruction, and a separate `query_embedding_cache`.

    Example:
        ```python
        embeddings = Qwen3Embeddings(model="tiny")
        vector = embeddings.embed_query("How is data stored?")
        ```

    Raises:
        pydantic.ValidationError: If a setting is out of range or unknown (a ValueError).
    """

    model: str | Path = Field(default=DEFAULT_EMBEDDING_MODEL, description=DESCRIPTIONS["model"])
    dimensions: int | None = Field(default=None, description=DESCRIPTIONS["dimensions"])

    _embedder: Embedder | RemoteEmbedder = PrivateAttr()

    @model_validator(mode="after")
    def _configure(self) -> Self:
        self._embedder = make_embedder(self.model, dimensions=self.dimensions, **settings_of(self))
        return self

    @property
    def embedder(self) -> Embedder | RemoteEmbedder:
        """The embedder behind this component, with methods that LangChain's interface lacks.

        For example, it embeds many queries at once as a float32 array:
        `embeddings.embedder.embed_queries(queries, instruction="fact_check")`. If the model runs in
        this process, `embeddings.embedder.stats()` returns the engine's statistics.
        """
        return self._embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents, without instruction.

        Args:
            texts: The documents; an empty text is embedded like any other.

        Returns:
            One vector of `dimensions` floats per text, in the same order; [] for no texts, without
            loading the model.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If a text contains a lone surrogate.
            OSError: If the model cannot be found or read.
            TimeoutError: If it takes longer than `timeout`.
        """
        vectors = self._embedder.embed_documents(texts, show_progress=self.show_progress)
        rows: list[list[float]] = vectors.tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """Embed a query with the instruction: `dimensions` floats.

        Raises:
            TypeError: If the query is not a string.
            ValueError: If it is blank or contains a lone surrogate.
            OSError: If the model cannot be found or read.
            TimeoutError: If it takes longer than `timeout`.
        """
        row: list[float] = self._embedder.embed_queries(
            [check_question(text, type(self).__name__)]
        )[0].tolist()
        return row

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like `embed_documents`, without blocking the event loop."""
        vectors = await self._embedder.aembed_documents(texts, show_progress=self.show_progress)
        rows: list[list[float]] = vectors.tolist()
        return rows

    async def aembed_query(self, text: str) -> list[float]:
        """Like `embed_query`, without blocking the event loop."""
        vectors = await self._embedder.aembed_queries([check_question(text, type(self).__name__)])
        row: list[float] = vectors[0].tolist()
        return row
