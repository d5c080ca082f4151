"""One ingest: file by file, batch by batch, each committed before the next."""

import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qwen3_core.common.validation import check_dimensions
from qwen3_core.milvus.collection import check_uri, connect
from qwen3_core.model.loading import load_tokenizer, vector_length
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, TINY
from qwen3_core.tokenizer import Qwen3Tokenizer
from qwen3_retrieval.ingest.chunks import Chunk, ChunkMaker, source_key
from qwen3_retrieval.ingest.collection import (
    Holdings,
    delete_chunks,
    fingerprint,
    read_holdings,
)
from qwen3_retrieval.ingest.corpus import Corpus, SourceFile, find_corpus
from qwen3_retrieval.ingest.framework import TITLES, Encode, Framework, load_framework, split
from qwen3_retrieval.ingest.journal import Journal, Note, default_path
from qwen3_retrieval.ingest.reading import UnreadableError, read_sections
from qwen3_retrieval.ingest.settings import Settings


@dataclass
class Summary:
    """What a run did; with `dry_run` what it would have done."""

    files: int = 0
    """Files of the corpus that are of a kind that can be read."""
    unchanged: int = 0
    """Files whose notes and rows say that nothing is to be done; they were not split."""
    ignored: int = 0
    """Files of other kinds."""
    chunks: int = 0
    """Chunks that the files that could be read consist of, those of unchanged files included."""
    written: int = 0
    """Chunks embedded and written."""
    deleted: int = 0
    """Chunks deleted: replaced ones, and with `delete_missing` those of files that are gone."""
    missing: int = 0
    """Files that the collection holds and the corpus does not; gone with `delete_missing`."""
    tokens: int = 0
    """Tokens of the chunks written."""
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    """Files and lines left out, each with the reason."""


@dataclass
class _Progress:
    """A file on its way."""

    file: SourceFile
    key: str
    held: set[bytes]
    """Digests of the chunks that the collection holds of it."""
    wanted: set[bytes] = field(default_factory=set)
    """Digests of its chunks."""
    waiting: int = 0
    """Chunks that wait for their batch."""
    digest: str | None = None
    """Of its bytes; known once it is read to its end."""
    whole: bool = True
    """Whether no part of it was left out."""


class Ingest:
    """A run. It can be killed at any moment: see the package's docstring."""

    def __init__(self, settings: Settings, framework: str | None = None) -> None:
        """Find the corpus and load the framework.

        Raises:
            OSError: If there is no corpus, or the model's config.json cannot be found or read.
            ValueError: If there is nothing to read, or a setting is out of range.
            ImportError: If a package is not installed.
        """
        self.settings = settings
        self.summary = Summary()
        self._uri = check_uri(settings.uri)
        self._corpus: Corpus = find_corpus(settings.corpus, settings.name)
        if settings.base_url is None:  # given the length, the framework loads no model to learn it
            full = vector_length(settings.model)
            dimensions = check_dimensions(settings.dimensions, full) or full
            self.settings = settings = replace(settings, dimensions=dimensions)
        self._encode = _encoder(settings)
        self._framework: Framework = load_framework(framework, settings, self._encode)
        shape = f"{settings.splitter}:{settings.chunk_size}:{settings.chunk_overlap}"
        self._splitter = f"{self._framework.id_field}:{shape}:{settings.text_field}"
        releases = [f"{name} {version(name)}" for name in self._framework.splitter_packages]
        self._cut_by = f"{self._splitter}:{TITLES}:{','.join(releases)}"
        self._journal = Journal(
            settings.journal or default_path(settings.uri, settings.collection), self._corpus.name
        )
        self._client: Any = None
        self._held: Holdings = {}
        self._batch: list[tuple[_Progress, Chunk]] = []

    def run(self) -> Summary:
        """Bring the collection up to date.

        Raises:
            ValueError: If the collection exists but does not fit, or is open elsewhere.
            OSError: If the model or the journal cannot be read, or no Milvus answers.
            ServerError: If the embedding server fails.
            pymilvus.exceptions.MilvusException: If Milvus fails.
        """
        begin = time.perf_counter()
        self.summary.files = len(self._corpus.files)
        self.summary.ignored = self._corpus.ignored
        self._connect()
        try:
            with self._bar() as bar:
                self._run(bar)
            if not self.settings.dry_run and (self.summary.written or self.summary.deleted):
                self._client.flush(self.settings.collection)
        except BaseException:
            with contextlib.suppress(OSError):  # what broke the run off is what must be told
                self._summarize(begin)
            raise
        self._summarize(begin)
        return self.summary

    def _summarize(self, begin: float) -> None:
        self.summary.seconds = round(time.perf_counter() - begin, 3)
        if not self.settings.dry_run:
            self._journal.summarize(asdict(self.summary))

    def _connect(self) -> None:
        settings = self.settings
        if settings.dry_run and "://" not in self._uri and not Path(self._uri).exists():
            return  # opening it would create it
        self._client = self._answering()
        self._framework.check()
        self._held = read_holdings(
            self._client,
            settings.collection,
            self._framework.id_field,
            self._corpus.name,
            repair=not settings.dry_run,
        )

    def _answering(self) -> Any:
        """A client of a Milvus that answers."""
        from pymilvus.exceptions import MilvusException

        try:
            return connect(self._uri, self.settings.token)
        except MilvusException as error:
            msg = (
                f"no Milvus answers at --uri {self._uri!r} ({error.message}): is the server up, "
                "and are --uri and --token right?"
            )
            raise ConnectionError(msg) from error

    def _bar(self) -> AbstractContextManager["tqdm[Any]"]:
        shown = self.settings.progress
        return tqdm(
            total=sum(file.size for file in self._corpus.files),
            unit="B",
            unit_scale=True,
            smoothing=0.1,
            desc="Ingest",
            disable=None if shown is None else not shown,
        )

    def _run(self, bar: "tqdm[Any]") -> None:
        for failure in self._corpus.unreadable:
            self._fail(failure, bar)
        notes = self._journal.read() if self.settings.resume else {}
        for file in self._corpus.files:
            held = self._held.get(_key(file), set())
            if self._is_unchanged(file, held, notes.get(file.source)):
                self.summary.unchanged += 1
                self.summary.chunks += len(held)
                bar.total = (bar.total or 0) - file.size  # rate and time left are of the rest
                bar.refresh()
            else:
                self._read(file, held, bar)
        self._commit(bar)
        self._clear_missing()

    def _is_unchanged(self, file: SourceFile, held: set[bytes], note: Note | None) -> bool:
        if note is None or note.splitter != self._cut_by or note.chunks != fingerprint(held):
            return False
        try:
            with file.path.open("rb") as data:
                return hashlib.file_digest(data, "sha256").hexdigest() == note.file
        except OSError:
            return False  # reading it will say why

    def _read(self, file: SourceFile, held: set[bytes], bar: "tqdm[Any]") -> None:
        progress = _Progress(file, _key(file), held)
        left = file.size
        try:
            for chunk, size in self._chunks(progress, bar):
                if chunk is None:
                    bar.update(min(size, left))
                    left -= min(size, left)
                    continue
                digest = bytes.fromhex(chunk.digest)
                progress.wanted.add(digest)
                self.summary.chunks += 1
                if digest in held and self.settings.resume:
                    continue
                progress.waiting += 1
                self._batch.append((progress, chunk))
                if len(self._batch) >= self.settings.batch_size:
                    self._commit(bar)
        except UnreadableError as error:
            self._fail(f"{_shown(file)}: {error}", bar)
            bar.update(left)
            return  # what the collection holds of it stays
        bar.update(left)
        if not progress.wanted and progress.whole:
            progress.whole = False
            self._fail(f"{_shown(file)}: there is no text in it", bar)
        if not progress.waiting:
            self._finish(progress)

    def _chunks(
        self, progress: _Progress, bar: "tqdm[Any]"
    ) -> Iterator[tuple[Chunk, int] | tuple[None, int]]:
        """The chunks of a file, and after those of each section None and the section's bytes."""
        file, hasher = progress.file, hashlib.sha256()

        def report(reason: str) -> None:
            progress.whole = False
            self._fail(f"{_shown(file)}: {reason}", bar)

        try:
            maker = ChunkMaker(self._corpus.name, file.source, self._splitter)
        except ValueError as error:
            raise UnreadableError(str(error)) from error
        for section in read_sections(file, hasher, self.settings.text_field, report):
            for piece, metadata in split(self._framework, section, self.settings.splitter):
                for chunk in maker.make([piece], metadata):
                    yield chunk, 0
            yield None, section.size
        progress.digest = hasher.hexdigest()

    def _commit(self, bar: "tqdm[Any]") -> None:
        """Write the batch, then finish the files that it completes."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        if not self.settings.dry_run:
            self._framework.write([chunk for _, chunk in batch])
        self.summary.written += len(batch)
        self.summary.tokens += sum(len(self._encode(chunk.text)) for _, chunk in batch)
        for progress, _ in batch:
            progress.waiting -= 1
            if progress.waiting == 0 and progress.digest is not None:
                self._finish(progress)
        bar.set_postfix(
            chunks=self.summary.written, failures=len(self.summary.failures), refresh=False
        )

    def _finish(self, progress: _Progress) -> None:
        """All its chunks are in the collection: remove what it no longer says, and note it."""
        self._delete(progress.key, progress.held - progress.wanted)
        if progress.whole and progress.digest is not None and not self.settings.dry_run:
            note = Note(progress.digest, self._cut_by, fingerprint(progress.wanted))
            self._journal.note(progress.file.source, note)

    def _clear_missing(self) -> None:
        """Files that the collection holds and the folder does not."""
        if not self._corpus.whole:
            return
        present = {_key(file) for file in self._corpus.files}
        missing = [key for key in self._held if key not in present]
        self.summary.missing = len(missing)
        if self.settings.delete_missing:
            for key in missing:
                self._delete(key, self._held[key])

    def _delete(self, key: str, digests: set[bytes]) -> None:
        if digests and not self.settings.dry_run:
            settings = self.settings
            delete_chunks(self._client, settings.collection, self._corpus.name, key, digests)
        self.summary.deleted += len(digests)

    def _fail(self, failure: str, bar: "tqdm[Any]") -> None:
        self.summary.failures.append(failure)
        bar.write(f"left out: {failure}", file=sys.stderr)


def _key(file: SourceFile) -> str:
    return source_key(_shown(file))


def _shown(file: SourceFile) -> str:
    """The file's name as text that can be printed and hashed."""
    return file.source.encode("utf-8", "backslashreplace").decode()


def _encoder(settings: Settings) -> Encode:
    """The model's tokenizer, loaded at its first use.

    All published sizes share one, and so do models under an alias.
    """
    name = settings.model
    if settings.base_url is not None:
        own = name == TINY or "/" in name or Path(name).is_dir()
        name = name if own else DEFAULT_EMBEDDING_MODEL

    @cache
    def tokenizer() -> Qwen3Tokenizer:
        try:
            return load_tokenizer(name, "embedding")
        except OSError as error:
            if not settings.dry_run:
                raise
            msg = f"--dry-run needs no weights, but the tokenizer, to cut: {error}"
            raise OSError(msg) from error

    return lambda text: tokenizer().encode(text)
