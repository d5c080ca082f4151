"""What one ingest is asked to do."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, Dtype

Splitter = Literal["framework", "headers", "none"]


@dataclass(frozen=True)
class Settings:
    """The command line; its help describes the fields."""

    corpus: Path
    uri: str = "./milvus.db"
    collection: str = "qwen3"
    name: str | None = None
    token: str | None = field(default=None, repr=False)  # a secret
    model: str = DEFAULT_EMBEDDING_MODEL
    base_url: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    dimensions: int | None = None
    splitter: Splitter = "framework"
    chunk_size: int = 512
    chunk_overlap: int = 64
    text_field: str = "text"
    batch_size: int = 128
    journal: Path | None = None
    resume: bool = True
    delete_missing: bool = False
    dry_run: bool = False
    progress: bool | None = None
    """None: where stderr is a terminal."""

    def __post_init__(self) -> None:
        """Check what can be checked here.

        Raises:
            ValueError: If a number is out of range.
        """
        for name, value in (("chunk_size", self.chunk_size), ("batch_size", self.batch_size)):
            if value < 1:
                msg = f"{name} must be at least 1, got {value}"
                raise ValueError(msg)
        if not 0 <= self.chunk_overlap < self.chunk_size:
            msg = (
                f"chunk_overlap must be from 0 to chunk_size - 1 = {self.chunk_size - 1}, "
                f"got {self.chunk_overlap}"
            )
            raise ValueError(msg)
