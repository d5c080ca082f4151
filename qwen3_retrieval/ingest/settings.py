"""The settings of an ingest."""

import codecs
from dataclasses import dataclass, field
from pathlib import Path

from qwen3_core.common.validation import ArgumentError
from qwen3_core.metadata import check_metadata_keys
from qwen3_core.milvus.index import IndexType
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, Dtype
from qwen3_retrieval.documents.cutting import CHUNK_OVERLAP, CHUNK_SIZE, Splitter, check_sizes


@dataclass(frozen=True)
class IngestSettings:
    """The command's settings; its help describes them."""

    corpus: Path
    uri: str = "./milvus.db"
    collection: str = "qwen3"
    index_type: IndexType | None = None
    name: str | None = None
    token: str | None = field(default=None, repr=False)  # a secret
    db_name: str | None = None
    model: str = DEFAULT_EMBEDDING_MODEL
    base_url: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    dimensions: int | None = None
    splitter: Splitter = "structure"
    chunk_size: int = CHUNK_SIZE
    chunk_overlap: int = CHUNK_OVERLAP
    text_field: str = "text"
    encoding: str | None = None
    metadata_keys: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    batch_size: int = 128
    journal: Path | None = None
    resume: bool = True
    delete_missing: bool = False
    dry_run: bool = False
    progress: bool | None = None
    """None: show progress if stderr is a terminal."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If a number is out of range, an encoding is unknown, or a metadata key is
                blank, repeated or a list.
        """
        check_metadata_keys(self.metadata_keys)
        for key in {"places", "sources"}.intersection(self.metadata_keys):
            msg = f"metadata_keys holds {key!r}, which is a list: name single values, as 'title'"
            raise ArgumentError(msg, "metadata_keys")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                msg = f"encoding {self.encoding!r} is unknown: give one like 'cp1252' or 'gb18030'"
                raise ArgumentError(msg, "encoding") from error
        if self.batch_size < 1:
            msg = f"batch_size must be at least 1, got {self.batch_size}"
            raise ArgumentError(msg, "batch_size")
        check_sizes(self.chunk_size, self.chunk_overlap)
