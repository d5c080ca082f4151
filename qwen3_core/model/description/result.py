"""What a checkpoint says about itself, as plain data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qwen3_core.model.description.checkpoint import TOKENIZER_JSON, first_json
from qwen3_core.model.files import ADAPTER, ADAPTER_WEIGHTS, WEIGHTS, State, states
from qwen3_core.model.source import Source
from qwen3_core.settings import ModelKind


@dataclass(frozen=True)
class Dense:
    """A linear layer after the pooling."""

    path: str
    """Its folder in the checkpoint."""
    in_features: int
    out_features: int
    bias: bool


Step = Dense | Literal["normalize"]
"""A layer after the pooling."""


@dataclass(frozen=True)
class Head:
    """A reranker's score head: rows of a matrix, the second subtracted from the first.

    Its product with the last hidden state is the log-odds.
    """

    matrix: Literal["lm_head", "score"] = "lm_head"
    rows: tuple[int | str, ...] = ("yes", "no")
    """One or two rows: token ids or labels, or words with a token id."""

    @property
    def labels(self) -> int:
        """Number of rows of the matrix "score"."""
        return len(self.rows)


@dataclass(frozen=True)
class Description:
    """Everything about a checkpoint that changes results, except its weights."""

    name: str
    """The checkpoint, as the user named it."""
    kind: ModelKind
    base: Source
    """Source of config.json and the weights."""
    adapter: Source | None
    """Source of the adapter that is merged into the weights; None if there is none."""
    hidden_size: int
    full_dimensions: int
    """Length of an embedding model's vectors before they are truncated."""
    dimensions: int
    """The same after the checkpoint's own truncation (`truncate_dim`), the default length."""
    after_pooling: tuple[Step, ...] = ()
    """Layers of an embedding model after the pooling, besides the final normalisation."""
    query_prompt: str | None = None
    """Prompt before a query; None: the published prompt template with an instruction."""
    document_prompt: str = ""
    """Prompt before a document."""
    instruction: str | None = None
    """A reranker's default instruction; None: the published one."""
    head: Head | None = None
    """A reranker's score head; None for an embedding model."""
    max_length: int | None = None
    """The checkpoint's own token limit per input, if below max_position_embeddings."""

    @property
    def pooling(self) -> str:
        """The pooling and, if a Dense module follows a normalisation, all layers after it."""
        kinds = ["dense" if isinstance(step, Dense) else step for step in self.after_pooling]
        while kinds[-1:] == ["normalize"]:  # as vectors are in any case
            kinds.pop()
        return " ".join(["last_token", *kinds]) if "normalize" in kinds else "last_token"

    @property
    def folder(self) -> Path:
        """Folder of the base's files; for a hub model, the snapshot in the hub's cache."""
        return self.base.folder

    def states(self) -> tuple[State, ...]:
        """The present state of its files, to detect changes after loading."""
        own = () if self.adapter is None else (self.adapter.folder,)
        return states((self.folder, *own), self.extra_weights)

    @property
    def extra_weights(self) -> tuple[Path, ...]:
        """Paths of weights in addition to the base's: the adapter's and those of Dense modules.

        For a hub checkpoint the files may not be downloaded yet.
        """
        own = [step.path for step in self.after_pooling if isinstance(step, Dense)]
        places = (self.base,) if self.adapter is None else (self.adapter, self.base)
        dense = [f"{path}/{WEIGHTS}" for path in own]
        found = [next((p for at in places if (p := at.path(file))), None) for file in dense]
        extra = [path or self.folder / file for path, file in zip(found, dense, strict=True)]
        if self.adapter is not None:
            extra += [self.adapter.folder / name for name in (ADAPTER, ADAPTER_WEIGHTS)]
            if (tokenizer := self.adapter.path(TOKENIZER_JSON)) is not None:
                extra.append(tokenizer)
        return tuple(extra)

    def json(self, filename: str, kind: type = dict) -> Any:
        """The contents of a small JSON file, the adapter's or else the base's; None: neither."""
        return first_json(self.adapter, self.base, filename, kind)

    def path(self, filename: str) -> Path | None:
        """The path of a file, the adapter's or else the base's; None if neither has it."""
        own = None if self.adapter is None else self.adapter.fetch(filename)
        return own or self.base.fetch(filename)
