"""Qwen3-Embedding as a LlamaIndex embedding model."""

from pathlib import Path
from typing import Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_validator

from llama_index_qwen3._settings import CheckpointSettings
from qwen3_core.common.docstrings import fields_documented
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
"""Settings that change no document's vector."""


class _Serialised(dict[str, Any]):
    """Settings, whose text leaves out `NOT_OF_DOCUMENTS`.

    `IngestionPipeline` makes the key of its cache from that text, and caches vectors of documents.
    """

    def __repr__(self) -> str:
        return repr({name: self[name] for name in self if name not in NOT_OF_DOCUMENTS})


@fields_documented
class Qwen3Embedding(CheckpointSettings, EmbedderMethods, BaseEmbedding):
    """Embeds queries behind an instruction and documents without, as the models were trained.

    Vectors are lists of floats of length 1, so inner product and cosine are equal. The model is
    loaded at first use, and shared by all components of the process that name the same one; an
    object can be shared between threads, copied and pickled.

    Settings that choose or run the model are fixed; `model_copy(update={...})` gives an object with
    others.

    Example:
        ```python
        from llama_index.core import Settings
        from llama_index_qwen3 import Qwen3Embedding

        Settings.embed_model = Qwen3Embedding()  # or Qwen3Embedding(model="tiny"), no download
        ```

    Raises:
        ValueError: If a setting is out of range. Whether the model exists, is of the right kind and
            long enough shows at first use: OSError or ValueError there.
    """

    model_config = ConfigDict(populate_by_name=True)

    model_name: str = Field(default=DEFAULT_EMBEDDING_MODEL, alias="model", frozen=True)
    """Hub name such as "Qwen/Qwen3-Embedding-0.6B", local folder, or "tiny" for the bundled one."""
    dimensions: int | None = Field(default=None, frozen=True)
    """Length of the vectors, from 32 to the model's own (1024, 2560, 4096 at 0.6B, 4B, 8B), which
    is the default."""
    embed_batch_size: int = Field(default=256, gt=0, le=2048)
    """Texts handed to the encoder at once, 1 to 2048. It fills forward passes by tokens, so
    this bounds no memory; more texts make fuller passes."""
    embeddings_cache: Any = Field(default=None, frozen=True)
    """Not supported: LlamaIndex keys it by the text alone, so that a query would get the vector of
    an equal document. `IngestionPipeline` has a cache of its own that is keyed by all settings."""

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
        """Check the settings; nothing is loaded yet."""
        super().model_post_init(context)
        self._make()

    def _make(self) -> None:
        self._embedder = make_embedder(
            self.model_name, dimensions=self.dimensions, **settings_of(self)
        )
        self._made_with = self.instruction

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises it."""
        return "Qwen3Embedding"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """All settings but the key."""
        return _Serialised(super().to_dict(**kwargs))

    def to_payload(self) -> dict[str, Any]:
        """What events and callbacks say of this model."""
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
        """The same as `model_name`, as other components call it."""
        return self.model_name

    @property
    def embedder(self) -> Embedder | RemoteEmbedder:
        """The embedder behind this component, for what LlamaIndex has no method for.

        For example its engine's counters, where the model runs in this process:
        `embed_model.embedder.stats()`. Its methods take another instruction.
        """
        if self._made_with != self.instruction:  # it was assigned; the model stays loaded
            self._make()
        return self._embedder

    @property
    def dim(self) -> int:
        """Length of the vectors, as vector stores ask for it; loads the model if not given."""
        return self._embedder.dimensions

    @property
    def fingerprint(self) -> Fingerprint:
        """What the vectors of documents are made with; loads the model if `dim` does."""
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

    # The base would read a string as a list of letters, and number a bad text within its batch.

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Vectors of documents.

        Raises:
            TypeError: If `texts` is not a list of strings.
            ValueError: If a text holds a lone surrogate.
        """
        return super().get_text_embedding_batch(
            check_texts(texts, "texts"), show_progress, **kwargs
        )

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Vectors of documents, without blocking the event loop; errors as in the sync twin."""
        return await super().aget_text_embedding_batch(
            check_texts(texts, "texts"), show_progress, **kwargs
        )
