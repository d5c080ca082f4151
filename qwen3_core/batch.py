"""`Qwen3EmbedBatch`: embeds Arrow tables, for Ray Data's `map_batches` and similar interfaces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3_core.common.docstrings import parameters_documented
from qwen3_core.common.validation import check_text
from qwen3_core.components import make_embedder
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, Dtype

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from qwen3_core.remote import Server

_TEXT_ERRORS = (TypeError, ValueError, FloatingPointError)
"""Errors that a single text can cause. Failures of the model or server end the job."""


@parameters_documented()
class Qwen3EmbedBatch:
    """Adds a column of document vectors to an Arrow table, and one of errors.

    The first call loads the model, once per process, so once per actor of a pool. The object can be
    pickled. The pickle contains neither the model nor the `api_key`: set `QWEN3_API_KEY` in the
    workers' environment. In a Ray actor, device="cuda" is the GPU that Ray assigned. Importing this
    module does not need Ray.

    Example:
        ```python
        ray.data.read_parquet("chunks/").map_batches(
            Qwen3EmbedBatch,
            fn_constructor_kwargs={"model": "Qwen/Qwen3-Embedding-0.6B", "dimensions": 512},
            batch_format="pyarrow",  # other formats write the vectors as an extension type
            batch_size=1024,
            compute=ray.data.ActorPoolStrategy(size=4),
            num_gpus=1,  # per actor; 0.5 lets two share one
        )
        ```
    """

    def __init__(  # noqa: D417 - the decorator adds the others
        self,
        model: str | Path = DEFAULT_EMBEDDING_MODEL,
        *,
        text_column: str = "text",
        vector_column: str = "vector",
        error_column: str = "error",
        base_url: str | None = None,
        api_key: str | None = None,
        server: Server | str | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: Dtype = "auto",
        max_length: int | None = None,
        dimensions: int | None = None,
        pack_tokens: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Check the settings; loads nothing.

        Args:
            text_column: Column of the documents' texts.
            vector_column: Column to add, list<float32>; null where the text was not embedded.
            error_column: Column to add, string; null where the text was embedded.

        Raises:
            ValueError: If a setting is out of range, or two columns share a name.
        """
        if len({text_column, vector_column, error_column}) < 3:
            msg = (
                "text_column, vector_column and error_column must differ, got "
                f"{text_column!r}, {vector_column!r}, {error_column!r}"
            )
            raise ValueError(msg)
        self.text_column = text_column
        self.vector_column = vector_column
        self.error_column = error_column
        self._settings: dict[str, Any] = {
            "model": model,
            "base_url": base_url,
            "api_key": api_key,
            "server": server,
            "revision": revision,
            "device": device,
            "dtype": dtype,
            "max_length": max_length,
            "dimensions": dimensions,
            "instruction": None,  # documents have no instruction
            "pack_tokens": pack_tokens,
            "timeout": timeout,
        }
        self._embedder = make_embedder(**self._settings)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_settings": self._settings | {"api_key": None}}
        del state["_embedder"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._embedder = make_embedder(**self._settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Append the two columns to a table; all other columns are unchanged.

        Args:
            batch: A table with the text column and neither of the other two.

        Raises:
            KeyError: If the text column is missing.
            ValueError: If a column to add exists already.
            OSError: If the model cannot be found or read.
            ServerError: If the server still fails after all retries.
        """
        import pyarrow as pa

        if self.text_column not in batch.column_names:
            msg = (
                f"no column {self.text_column!r} among {batch.column_names}: set text_column to "
                "the one that holds the texts"
            )
            raise KeyError(msg)
        taken = {self.vector_column, self.error_column}.intersection(batch.column_names)
        if taken:
            msg = (
                f"the columns {sorted(taken)} are there already: drop them, or set vector_column "
                "and error_column to other names"
            )
            raise ValueError(msg)

        vectors: list[np.ndarray | None] = [None] * batch.num_rows
        errors: list[str | None] = [None] * batch.num_rows
        texts: dict[int, str] = {}
        for i, value in enumerate(_values(batch.column(self.text_column))):
            try:
                texts[i] = check_text(value, self.text_column)
            except _TEXT_ERRORS as error:
                errors[i] = str(error)
        try:
            rows = self._embedder.embed_documents(list(texts.values()))
            vectors = _placed(batch.num_rows, dict(zip(texts, rows, strict=True)))
        except _TEXT_ERRORS:  # embed texts one by one to find the faulty ones
            for i, text in texts.items():
                try:
                    vectors[i] = self._embedder.embed_documents([text])[0]
                except _TEXT_ERRORS as error:
                    errors[i] = f"{type(error).__name__}: {error}"
            if all(errors[i] for i in texts):
                # If this text fails too, the cause is a setting, such as dimensions beyond the
                # model's.
                self._embedder.embed_documents(["Is it the texts?"])
        table = batch.append_column(
            self.vector_column, pa.array(vectors, type=pa.list_(pa.float32()))
        )
        return table.append_column(self.error_column, pa.array(errors, type=pa.string()))


def _placed(count: int, found: dict[int, np.ndarray]) -> list[np.ndarray | None]:
    return [found.get(i) for i in range(count)]


def _values(column: Any) -> list[object]:
    """The column's values; strings that are not valid UTF-8 are returned as bytes."""
    values: list[object] = []
    for scalar in column:
        try:
            values.append(scalar.as_py())
        except UnicodeDecodeError:  # Arrow does not validate that its strings are UTF-8
            values.append(scalar.as_buffer().to_pybytes())
    return values
