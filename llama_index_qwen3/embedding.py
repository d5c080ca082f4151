"""Qwen3-Embedding as a LlamaIndex embedding model."""

from pathlib import Path
from typing import Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_validator

from llama_index_qwen3._settings import CheckpointSettings
from qwen3_core.common.docstrings import DESCRIPTIONS, fields_documented
from qwen3_core.common.validation import check_query, check_texts
from qwen3_core.components import EmbedderMethods, make_embedder, settings_of
from qwen3_core.embedder import Embedder
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.remote import RemoteEmbedder
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL

NOT_OF_DOCUMENTS: Final = (
    "embed_batch_size",
    "instruction",
    "num_workers",
    "pack_tokens",
    "timeout",
)
"""Settings that do not change document vectors."""


class _Serialised(dict[str, Any]):
    """Settings whose `repr` omits `NOT_OF_DOCUMENTS`.

    `IngestionPipeline` caches document vectors and uses this string as the cache key.
    """

    def __repr__(self) -> str:
        return repr({name: self[name] for name in self if name not in NOT_OF_DOCUMENTS})


@fields_documented
class Qwen3Embedding(CheckpointSettings, EmbedderMethods, BaseEmbedding):
    """Embeds queries with an instruction and documents without one, as the models were trained.

    Vectors are lists of floats of length 1, so inner product and cosine are equal. The model is
    loaded at first use, and shared by all components of the process that name the same one. Objects
    are thread-safe and can be copied and pickled.

    Settings that choose or run the model are fixed; `model_copy(update={...})` returns a copy with
    other values.

    Example:
        ```python
        from llama_index.core import Settings
        from llama_index_qwen3 import Qwen3Embedding

        Settings.embed_model = Qwen3Embedding()  # or Qwen3Embedding(model="tiny"), no download
        ```

    Raises:
        ValueError: If a setting is out of range. The model itself is checked at first use, which
            raises OSError or ValueError.
    """

    model_config = ConfigDict(populate_by_name=True)

    model_name: str = Field(
        default=DEFAULT_EMBEDDING_MODEL,
        alias="model",
        frozen=True,
        description=DESCRIPTIONS["model_name"],
    )
    dimensions: int | None = Field(
        default=None, frozen=True, description=DESCRIPTIONS["dimensions"]
    )
    embed_batch_size: int = Field(default=256, gt=0, le=2048)
    """Texts per call of the encoder, 1 to 2048. The encoder fills forward passes by tokens, so this
    does not limit memory; more texts make fuller passes."""
    embeddings_cache: Any = Field(default=None, frozen=True)
    """Not supported: LlamaIndex's key is the text alone, so a query would get the vector of an
    equal document. `IngestionPipeline` has its own cache, whose key includes all settings."""

    _embedder: Embedder | RemoteEmbedder = PrivateAttr()
    _made_with: str | None = PrivateAttr()

    @field_validator("model_name", mode="before")
    @classmethod
    def _accept_path(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @field_validator("embeddings_cache")
    @classmethod
    def _refuse_cache(cls, value: object) -> None:
        if value is not None:
            msg = (
                "embeddings_cache must be None: LlamaIndex keys it by the text alone, so a query "
                "would get the vector of an equal document; use IngestionPipeline(cache=...), "
                "whose keys hold all settings"
            )
            raise ValueError(msg)

    def model_post_init(self, context: Any, /) -> None:
        """Check the settings; loads nothing."""
        super().model_post_init(context)
        self._make()

    def _make(self) -> None:
        self._embedder = make_embedder(
            self.model_name, dimensions=self.dimensions, **settings_of(self)
        )
        self._made_with = self.instruction

    @classmethod
    def class_name(cls) -> str:
        """The class name in LlamaIndex's serialisation."""
        return "Qwen3Embedding"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """All settings except the key."""
        return _Serialised(super().to_dict(**kwargs))

    def to_payload(self) -> dict[str, Any]:
        """The description of this model in events and callbacks."""
        return {
            "class_name": self.class_name(),
            "model_name": self.model_name,
            "embed_batch_size": self.embed_batch_size,
            "revision": self.revision,
            "dimensions": self.dimensions,
            "instruction": self.instruction,
        }

    @property
    def model(self) -> str:
        """Alias of `model_name`, the name in other components."""
        return self.model_name

    @property
    def embedder(self) -> Embedder | RemoteEmbedder:
        """The embedder behind this component, with methods that LlamaIndex's interface lacks.

        If the model runs in this process, `embed_model.embedder.stats()` returns the engine's
        statistics. Its methods accept another instruction per call.
        """
        if self._made_with != self.instruction:  # assigned since; the model stays loaded
            self._make()
        return self._embedder

    @property
    def dim(self) -> int:
        """Length of the vectors, for vector stores; loads the model if not given."""
        return self._embedder.dimensions

    @property
    def fingerprint(self) -> Fingerprint:
        """Model and settings that produce the document vectors; loads the model if `dim` does."""
        return self._embedder.fingerprint

    def _get_query_embedding(self, query: str) -> Embedding:
        vectors = self.embedder.embed_queries([check_query(query)])
        embedding: Embedding = vectors[0].tolist()
        return embedding

    async def _aget_query_embedding(self, query: str) -> Embedding:
        vectors = await self.embedder.aembed_queries([check_query(query)])
        embedding: Embedding = vectors[0].tolist()
        return embedding

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        embeddings: list[Embedding] = self._embedder.embed_documents(texts).tolist()
        return embeddings

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors = await self._embedder.aembed_documents(texts)
        embeddings: list[Embedding] = vectors.tolist()
        return embeddings

    # The base class would read a string as a list of letters, and report a faulty text's position
    # within its batch.

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed documents.

        Raises:
            TypeError: If `texts` is not a list of strings.
            ValueError: If a text contains a lone surrogate.
        """
        return super().get_text_embedding_batch(
            check_texts(texts, "texts"), show_progress, **kwargs
        )

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Like `get_text_embedding_batch`, without blocking the event loop."""
        return await super().aget_text_embedding_batch(
            check_texts(texts, "texts"), show_progress, **kwargs
        )
