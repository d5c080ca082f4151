"""Reads a CSV or JSON lines file of questions, each with the passage or file that answers it."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from qwen3_retrieval.documents.cutting import Cutter
from qwen3_retrieval.evaluation.dataset import (
    Dataset,
    DatasetError,
    Passage,
    Question,
    check_missing,
    squeeze,
)
from qwen3_retrieval.evaluation.folder import Folder, digest, read_folder
from qwen3_retrieval.evaluation.lines import fail, read_objects, read_table, text_of

SUFFIXES: Final = {".csv": ",", ".tsv": "\t", ".jsonl": ""}

NAMES: Final = {
    "question": ("question", "query"),
    "passage": ("passage", "expected_passage", "context", "answer", "text"),
    "source": ("source", "expected_source", "source_file", "file"),
}
"""Columns and their accepted names; the first existing one is used."""


def read_questions(
    path: Path,
    cutter: Cutter,
    corpus: Path | None = None,
    leave_out: Sequence[Path] = (),
    metadata_keys: Sequence[str] = (),
) -> Dataset:
    """Read questions and the passages or files that answer them.

    With a passage column alone, the corpus consists of the file's passages; with `corpus`, each
    must be part of a passage there. With a source column, the corpus is a folder, and a file's rank
    is that of its first passage.

    Args:
        path: .csv, .tsv or .jsonl.
        cutter: Cuts the folder's files.
        corpus: Folder of documents; for a source column, by default the table's folder.
        leave_out: Files of the folder to omit, in addition to the table itself.
        metadata_keys: Metadata that the models read before each passage of a folder.

    Raises:
        OSError: If a file cannot be read.
        DatasetError: If columns are missing, a line is malformed, or too many lines refer to items
            missing from the corpus.
    """
    rows = list(_rows(path))
    if not rows:
        msg = f"{path}: there are no questions in it"
        raise DatasetError(msg)
    line, names = rows[0]
    question, passage, source = (_column(what, names) for what in NAMES)
    if question is None:
        fail(path, line, _no_column("question", names))
    away = (path, *leave_out)
    if source is not None and (passage is None or corpus is not None):
        folder = read_folder(corpus or path.resolve().parent, cutter, away, metadata_keys)
        return _by_source(path, rows, question, source, folder)
    if passage is None:
        fail(path, line, _no_column("passage or source", names))
    if corpus is None and metadata_keys:
        msg = f"{path}: its passages have no metadata: give their folder as --corpus"
        raise DatasetError(msg)
    if corpus is None:
        return _by_passage(path, rows, question, passage)
    folder = read_folder(corpus, cutter, away, metadata_keys)
    return _by_passage_in(path, rows, question, passage, folder)


def _no_column(what: str, names: Iterable[str]) -> str:
    known = "; ".join(f"{column}: {', '.join(each)}" for column, each in NAMES.items())
    return f"no column for {what} among {list(names)} (names known: {known})"


Row = tuple[int, dict[str, Any]]


def _rows(path: Path) -> Iterator[Row]:
    delimiter = SUFFIXES[path.suffix.lower()]
    if delimiter:
        yield from read_table(path, delimiter)
    else:
        yield from read_objects(path)


def _column(what: str, names: Container[str]) -> str | None:
    return next((name for name in NAMES[what] if name in names), None)


def _by_passage(path: Path, rows: list[Row], question: str, passage: str) -> Dataset:
    passages: dict[str, Passage] = {}
    judged: list[tuple[str, str]] = []
    for line, record in rows:
        asked = text_of(record, question, path, line)
        text = text_of(record, passage, path, line)
        key = digest(text)
        passages.setdefault(key, Passage(key, text, key))
        judged.append((asked, key))
    return Dataset(path.name, "table", list(passages.values()), _questions(judged))


def _by_passage_in(
    path: Path, rows: list[Row], question: str, passage: str, folder: Folder
) -> Dataset:
    notes = folder.notes
    texts = [(squeeze(p.text), p.unit) for p in folder.passages]
    judged, missing = [], []
    for line, record in rows:
        asked = text_of(record, question, path, line)
        wanted = squeeze(text_of(record, passage, path, line))
        units = [unit for text, unit in texts if wanted in text or (text in wanted and text)]
        if not units:
            missing.append(f"line {line}: no passage of the corpus holds {wanted[:60]!r}")
        judged += [(asked, unit) for unit in units]
    notes += check_missing(missing, len(rows), path)
    return Dataset(path.name, "table", folder.passages, _questions(judged), notes=notes)


def _by_source(path: Path, rows: list[Row], question: str, source: str, folder: Folder) -> Dataset:
    notes = folder.notes
    owner = {p.unit: p.source for p in folder.passages}
    passages = [replace(p, unit=p.source) for p in folder.passages]
    files: dict[str, set[str]] = {}  # the units of each: itself, unless it is a copy
    for part in folder.parts:
        files.setdefault(part.source, set()).update(owner[unit] for unit in part.units)
    by_name: dict[str, list[str]] = {}
    for file, units in files.items():
        files[file] = {file} if file in units else units
        by_name.setdefault(file.rpartition("/")[2], []).append(file)
    judged, missing = [], []
    for line, record in rows:
        asked = text_of(record, question, path, line)
        name = text_of(record, source, path, line).replace("\\", "/").removeprefix("./")
        found = [name] if name in files else by_name.get(name, [])
        if len(found) > 1:
            fail(path, line, f"{name!r} may be {' or '.join(found)}: give the path")
        if not found:
            missing.append(f"line {line}: file {name!r}")
        judged += [(asked, unit) for file in found for unit in files[file]]
    notes += check_missing(missing, len(rows), path)
    return Dataset(path.name, "table", passages, _questions(judged), notes=notes)


def _questions(judged: list[tuple[str, str]]) -> list[Question]:
    """One question per wording, with the answers of all its lines."""
    relevant: dict[str, dict[str, int]] = {}
    for asked, unit in judged:
        relevant.setdefault(asked.strip(), {})[unit] = 1
    return [Question(digest(asked), asked, units) for asked, units in relevant.items()]
