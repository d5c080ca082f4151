"""One ingest: file by file, batch by batch; each batch is committed before the next."""

import contextlib
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qwen3_core.metadata import with_metadata
from qwen3_core.milvus.collection import check_uri, connect
from qwen3_core.model.loading import vector_length
from qwen3_core.tokenizer import Qwen3Tokenizer
from qwen3_retrieval.documents.corpus import MEDIA, Corpus, SourceFile, find_corpus, why_skipped
from qwen3_retrieval.documents.cutting import CUTTING, Cutter, Piece, tokenizer_of
from qwen3_retrieval.documents.reading import READERS, read_sections
from qwen3_retrieval.documents.text import UnreadableError
from qwen3_retrieval.ingest.chunks import (
    MAX_PLACES,
    Chunk,
    Place,
    chunk_of_row,
    header_of,
    make_chunk,
    place_key,
    source_key,
)
from qwen3_retrieval.ingest.collection import (
    Holdings,
    delete_rows,
    fingerprint,
    read_holdings,
    read_rows,
)
from qwen3_retrieval.ingest.framework import Framework, load_framework
from qwen3_retrieval.ingest.journal import Journal, Note, default_path
from qwen3_retrieval.ingest.settings import IngestSettings


@dataclass
class Summary:
    """The work of a run; with `dry_run`, the work that it would do."""

    files: int = 0
    """Files of readable kinds in the corpus."""
    unchanged: int = 0
    """Files that notes and rows show to be unchanged; they were not cut."""
    chunks: int = 0
    """Distinct chunks of the readable files, including unchanged ones."""
    repeated: int = 0
    """Chunks among them with several places."""
    written: int = 0
    """New chunks, embedded and written."""
    updated: int = 0
    """Chunks written again, because they have more or fewer places than before."""
    deleted: int = 0
    """Chunks deleted: replaced ones, and with `delete_missing` those of removed files."""
    missing: int = 0
    """Files in the collection but not in the corpus; `delete_missing` removes them."""
    tokens: int = 0
    """Tokens of the written chunks, with the metadata that is embedded before them."""
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    """Omitted files, lines and records, each with the reason."""
    skipped: list[str] = field(default_factory=list)
    """Files of unsupported kinds, each with the reason."""
    remarks: list[str] = field(default_factory=list)
    """Scanned pages and attachments without text, each with the reason."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """For "failures", "skipped" and "remarks": reason and kind of file -> count."""
    incomplete: bool = False
    """Whether a file that may contain text was omitted, in whole or in part."""


@dataclass
class _Progress:
    """A file in progress."""

    file: SourceFile
    key: str
    held: set[bytes]
    """Its entries in the collection, as in `Holdings.files`."""
    wanted: set[bytes] = field(default_factory=set)
    """Its new entries."""
    waiting: int = 0
    """Chunks that wait for their batch."""
    late: bool = False
    """Whether the updates at the end concern it."""
    digest: str | None = None
    """Digest of its bytes; known after it is read completely."""
    whole: bool = True
    """Whether no part of it was omitted."""
    problem: str = ""
    """The last reported problem with its metadata."""


@dataclass
class _Update:
    """The changes of a row's places; all are applied at the end of the run."""

    added: list[Place] = field(default_factory=list)
    removed: set[bytes] = field(default_factory=set)
    """Keys of places."""


class Ingest:
    """A run. It can be killed at any moment: see the package's docstring."""

    def __init__(self, settings: IngestSettings, framework: str | None = None) -> None:
        """Find the corpus and load the framework.

        Raises:
            OSError: If there is no corpus, or the model's config.json cannot be found or read.
            ValueError: If there is nothing to read, or a setting is out of range.
            ImportError: If a package is not installed.
        """
        self.settings = settings
        self.summary = Summary()
        self._uri = check_uri(settings.uri)
        self._corpus: Corpus = find_corpus(settings.corpus, settings.name, settings.exclude)
        if settings.base_url is None:  # with the length given, the framework loads no model for it
            dimensions = vector_length(settings.model, settings.dimensions)
            self.settings = settings = replace(settings, dimensions=dimensions)
        self._framework: Framework = load_framework(framework, settings)
        own = settings.splitter == "framework"
        self._load_tokenizer = tokenizer_of(settings.model, settings.base_url)
        self._cutter = Cutter(
            self._tokenizer,
            *(settings.splitter, settings.chunk_size, settings.chunk_overlap),
            self._framework.splitters(self._tokenizer) if own else None,
        )
        package = self._framework.splitter_package
        self._cut_by = ":".join(
            (
                *(READERS, CUTTING, settings.splitter, str(settings.chunk_size)),
                *(str(settings.chunk_overlap), settings.text_field, str(settings.encoding)),
                *([f"{package} {version(package)}"] if own else []),
            )
        )
        self._journal = Journal(
            settings.journal or default_path(settings.uri, _full_name(settings)), self._corpus.name
        )
        self._client: Any = None
        self._held = Holdings()
        self._batch: dict[bytes, tuple[Chunk, list[_Progress]]] = {}
        self._updates: dict[bytes, _Update] = {}
        self._late: list[_Progress] = []
        self._wanted: dict[bytes, int] = {}  # places of each chunk in this run

    def run(self) -> Summary:
        """Bring the collection up to date.

        Raises:
            ValueError: If the collection exists but does not match, or is open elsewhere.
            OSError: If the model or the journal cannot be read, or Milvus does not answer.
            ServerError: If the embedding server fails.
            pymilvus.exceptions.MilvusException: If Milvus fails.
        """
        begin = time.perf_counter()
        self.summary.files = len(self._corpus.files)
        self._connect()
        try:
            with self._bar() as bar:
                self._run(bar)
            if not self.settings.dry_run and (self.summary.written or self.summary.deleted):
                self._client.flush(self.settings.collection)
        except BaseException:
            with contextlib.suppress(OSError):  # the error that ended the run is the one to report
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
        """A client of a Milvus server that answers."""
        from pymilvus.exceptions import MilvusException

        try:
            return connect(self._uri, self.settings.token, self.settings.db_name)
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
            self._tell("failures", failure, "a folder that cannot be listed", "", bar)
        for path in self._corpus.skipped:
            self.summary.incomplete |= path.suffix.lower() not in MEDIA
            self._tell("skipped", _text(path.as_posix()), why_skipped(path.suffix), "", bar)
        notes = self._journal.read() if self.settings.resume else {}
        for file in self._corpus.files:
            held = self._held.files.get(_key(file), set())
            if self._is_unchanged(file, held, notes.get(file.source)):
                self.summary.unchanged += 1
                self._want(held)
                bar.total = (bar.total or 0) - file.size  # rate and remaining time concern the rest
                bar.refresh()
            else:
                self._read(file, set(held), bar)
        self._commit(bar)
        self._clear_missing()
        self._update()
        self.summary.chunks = len(self._wanted)
        self.summary.repeated = sum(places > 1 for places in self._wanted.values())

    def _is_unchanged(self, file: SourceFile, held: set[bytes], note: Note | None) -> bool:
        if note is None or note.splitter != self._cut_by or note.chunks != fingerprint(held):
            return False
        try:
            with file.path.open("rb") as data:
                return hashlib.file_digest(data, "sha256").hexdigest() == note.file
        except OSError:
            return False  # reading it will report the error

    def _want(self, entries: set[bytes]) -> None:
        for entry in entries:
            self._wanted[entry[:16]] = self._wanted.get(entry[:16], 0) + 1

    def _read(self, file: SourceFile, held: set[bytes], bar: "tqdm[Any]") -> None:
        progress = _Progress(file, _key(file), held)
        left = file.size
        try:
            for piece, size in self._pieces(progress, bar):
                if piece is None:
                    bar.update(min(size, left))
                    left -= min(size, left)
                    continue
                try:
                    self._place(piece, progress)
                except ValueError as error:
                    progress.whole = False
                    if str(error) != progress.problem:  # all passages of a text have its fields
                        progress.problem = str(error)
                        reason = "metadata that cannot be embedded"
                        self._fail(file, reason, progress.problem, bar)
                if len(self._batch) >= self.settings.batch_size:
                    self._commit(bar)
        except UnreadableError as error:
            self._fail(file, error.reason, error.detail, bar)
            bar.update(left)
            self._want(progress.wanted | held)
            return  # its rows in the collection stay
        bar.update(left)
        if not progress.wanted and progress.whole:
            progress.whole = False
            self._fail(file, "no text, or headings alone", "", bar)
        self._want(progress.wanted)
        if not progress.waiting:
            self._finish(progress)

    def _pieces(
        self, progress: _Progress, bar: "tqdm[Any]"
    ) -> Iterator[tuple[Piece, int] | tuple[None, int]]:
        """Yield a file's passages, and after each section None and the section's bytes."""
        file, hasher = progress.file, hashlib.sha256()

        def report(reason: str, detail: str) -> None:
            progress.whole = False
            self._fail(file, reason, detail, bar)

        def remark(reason: str, detail: str) -> None:
            self._tell("remarks", _shown(file), reason, detail, bar, file.path.suffix)

        if _shown(file) != file.source:
            reason = "its name is not UTF-8"
            raise UnreadableError(reason)
        sections = read_sections(
            *(file, hasher, report),
            text_field=self.settings.text_field,
            encoding=self.settings.encoding,
            remark=remark,
        )
        for section in sections:
            for piece in self._cutter.cut(section):
                yield piece, 0
            yield None, section.size
        progress.digest = hasher.hexdigest()

    def _place(self, piece: Piece, progress: _Progress) -> None:
        """Make a passage a new row, or a place of an existing row.

        Raises:
            ValueError: If its metadata cannot be embedded.
        """
        place = {"source": progress.file.source, **piece.place}
        key = place_key(place)
        rows, resume = self._held.rows, self.settings.resume
        header = header_of(self._corpus.name, piece, place, self.settings.metadata_keys)
        number = 1
        while True:
            chunk = make_chunk(self._corpus.name, piece, number, header)
            entry = chunk.digest + key
            is_there = entry in progress.held or entry in progress.wanted
            if is_there or rows.get(chunk.digest, 0) < MAX_PLACES:
                break
            number += 1
        if entry in progress.wanted:
            return
        progress.wanted.add(entry)
        if entry in progress.held:
            if not resume:
                self._updates.setdefault(chunk.digest, _Update())
                progress.late = True
            return
        rows[chunk.digest] = rows.get(chunk.digest, 0) + 1
        if chunk.digest in self._batch:
            there, waiting = self._batch[chunk.digest]
            there.places.append(place)
        elif rows[chunk.digest] > 1:
            update = self._updates.setdefault(chunk.digest, _Update())
            update.added.append(place)
            progress.late = True
            return
        else:
            chunk.places.append(place)
            waiting = []
            self._batch[chunk.digest] = (chunk, waiting)
        waiting.append(progress)
        progress.waiting += 1

    def _commit(self, bar: "tqdm[Any]") -> None:
        """Write the batch, then finish the files that it completes."""
        batch, self._batch = self._batch, {}
        if not batch:
            return
        chunks = [chunk for chunk, _ in batch.values()]
        self._write(chunks)
        self.summary.written += len(chunks)
        for _, waiting in batch.values():
            for progress in waiting:
                progress.waiting -= 1
                if progress.waiting == 0 and progress.digest is not None:
                    self._finish(progress)
        self._count(bar)

    def _write(self, chunks: list[Chunk]) -> None:
        if not self.settings.dry_run:
            self._framework.write(chunks)
        encode = self._tokenizer().encode
        keys = self.settings.metadata_keys
        texts = [with_metadata(chunk.text, chunk.metadata, keys) for chunk in chunks]
        self.summary.tokens += sum(len(encode(text)) for text in texts)

    def _count(self, bar: "tqdm[Any]") -> None:
        bar.set_postfix(
            chunks=self.summary.written, failures=len(self.summary.failures), refresh=False
        )

    def _finish(self, progress: _Progress) -> None:
        """After a file's new rows are stored, delete its stale rows and note the file."""
        progress.late |= self._release(progress.held - progress.wanted)
        if progress.late:
            self._late.append(progress)
        else:
            self._note(progress)

    def _note(self, progress: _Progress) -> None:
        if progress.whole and progress.digest is not None and not self.settings.dry_run:
            note = Note(progress.digest, self._cut_by, fingerprint(progress.wanted))
            self._journal.note(progress.file.source, note)

    def _release(self, entries: set[bytes]) -> bool:
        """Delete rows without other places; returns whether other rows wait for an update."""
        rows = self._held.rows
        late, empty = False, []
        for entry in entries:
            digest, key = entry[:16], entry[16:]
            rows[digest] -= 1
            if rows[digest]:
                self._updates.setdefault(digest, _Update()).removed.add(key)
                late = True
            else:
                del rows[digest]
                self._updates.pop(digest, None)
                empty.append(digest)
        if empty and not self.settings.dry_run:
            delete_rows(self._client, self.settings.collection, self._corpus.name, empty)
        self.summary.deleted += len(empty)
        return late

    def _clear_missing(self) -> None:
        """Handle files that are in the collection but not in the folder."""
        if not self._corpus.whole:
            return
        present = {_key(file) for file in self._corpus.files}
        missing = [key for key in self._held.files if key not in present]
        self.summary.missing = len(missing)
        if self.settings.delete_missing:
            for key in missing:
                self._release(self._held.files[key])

    def _update(self) -> None:
        """Write the rows with changed places, then note the files that waited for them."""
        settings, digests = self.settings, list(self._updates)
        self.summary.updated = len(digests)
        if not settings.dry_run:
            for start in range(0, len(digests), settings.batch_size):
                some = digests[start : start + settings.batch_size]
                place = (self._client, settings.collection, self._corpus.name)
                chunks, replaced = [], []
                for digest, row in read_rows(*place, some):
                    chunk = chunk_of_row(self._corpus.name, digest, row)
                    before = chunk.metadata.keys()
                    update = self._updates[digest]
                    kept = [p for p in chunk.places if place_key(p) not in update.removed]
                    chunk.places = [*kept, *update.added]
                    chunks.append(chunk)
                    if before - chunk.metadata.keys():
                        replaced.append(digest)
                # Milvus Lite's upsert keeps old dynamic fields that the new row lacks.
                delete_rows(*place, replaced)
                self._write(chunks)
        for progress in self._late:
            self._note(progress)

    def _fail(self, file: SourceFile, reason: str, detail: str, bar: "tqdm[Any]") -> None:
        self._tell("failures", _shown(file), reason, detail, bar, file.path.suffix)

    def _tell(
        self,
        what: str,
        place: str,
        reason: str,
        detail: str,
        bar: "tqdm[Any]",
        suffix: str = "",
    ) -> None:
        """Report an omission once, and count it."""
        text = f"{place}: {reason} ({detail})" if detail else f"{place}: {reason}"
        getattr(self.summary, what).append(text)
        self.summary.incomplete |= what == "failures"
        counts = Counter(self.summary.counts.get(what, {}))
        counts[f"{reason} ({suffix})" if suffix else reason] += 1
        self.summary.counts[what] = dict(counts)
        word = {"failures": "left out", "skipped": "skipped", "remarks": "note"}[what]
        bar.write(f"{word}: {text}", file=sys.stderr)

    def _tokenizer(self) -> Qwen3Tokenizer:
        try:
            return self._load_tokenizer()
        except OSError as error:
            if not self.settings.dry_run:
                raise
            msg = f"--dry-run needs no weights, but the tokenizer, to cut: {error}"
            raise OSError(msg) from error


def _key(file: SourceFile) -> str:
    return source_key(_shown(file))


def _shown(file: SourceFile) -> str:
    """The file's name as printable, hashable text."""
    return _text(file.source)


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _full_name(settings: IngestSettings) -> str:
    """The collection's name with its database's; each has its own journal."""
    return f"{settings.db_name}.{settings.collection}" if settings.db_name else settings.collection
