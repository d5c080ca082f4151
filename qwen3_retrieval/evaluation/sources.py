"""A user's own retriever or query engine as a system: its results, matched to passages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, cast

from qwen3_retrieval.evaluation.dataset import Dataset, squeeze

SOURCES: Final = ("source", "file_path", "file_name", "path", "url")
"""Metadata that name a file."""

FRAMEWORKS: Final = {"langchain_core": "_langchain", "llama_index": "_llama_index"}
"""Package of a framework -> its adapter module here."""


@dataclass(frozen=True)
class Hit:
    """One result of a retriever."""

    text: str
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


Search = Callable[[str], Sequence[Hit]]
"""Question -> results, best first."""


def as_search(source: Any) -> Search:
    """A search function for a retriever or query engine.

    Args:
        source: A LangChain retriever (or any runnable from a string to documents), a LlamaIndex
            retriever or query engine, or a function from a question to `Hit`s.

    Raises:
        TypeError: If it has another type.
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(source).__mro__}
    for package, ours in FRAMEWORKS.items():
        # An object with a framework's base class implies that the framework is installed.
        if package in packages:
            return cast(
                "Search", import_module(f"qwen3_retrieval.evaluation.{ours}").searcher(source)
            )
    if callable(source):
        return cast("Search", source)
    msg = (
        "a retriever must be a LangChain retriever, a LlamaIndex retriever or query engine, or a "
        f"function that returns Hits, got {type(source).__name__}"
    )
    raise TypeError(msg)


class Matcher:
    """Finds the unit of a hit."""

    def __init__(self, dataset: Dataset) -> None:
        """Index a dataset's passages by id, text and file."""
        self._units = {passage.unit for passage in dataset.passages}
        self._by_id = {passage.id: passage.unit for passage in dataset.passages}
        self._texts = [(squeeze(p.text), p.unit) for p in dataset.passages]
        self._by_text = dict(self._texts)
        self._known: dict[str, str | None] = {}

    def __call__(self, hit: Hit) -> str | None:
        """The unit of a hit, or None.

        Criteria in this order: its id, or `id` or `_id` in its metadata, is that of a passage or
        unit; its file is a unit; its text equals, is part of, or contains a passage.
        """
        for key in (hit.id, hit.metadata.get("_id"), hit.metadata.get("id")):
            if key is not None and str(key) in self._by_id:
                return self._by_id[str(key)]
            if key is not None and str(key) in self._units:
                return str(key)
        for name in SOURCES:
            unit = self._file(hit.metadata.get(name))
            if unit is not None:
                return unit
        text = squeeze(hit.text)
        if text not in self._known:
            self._known[text] = self._by_text.get(text) or self._overlapping(text)
        return self._known[text]

    def _file(self, name: object) -> str | None:
        """The longest unit that is the end of a file's path."""
        if not isinstance(name, str) or not name:
            return None
        parts = name.replace("\\", "/").split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        return next((end for end in ends if end in self._units), None)

    def _overlapping(self, text: str) -> str | None:
        """The unit of the longest passage that contains the text or is part of it."""
        if not text:
            return None
        found = [(len(t), unit) for t, unit in self._texts if t and (t in text or text in t)]
        return max(found)[1] if found else None
