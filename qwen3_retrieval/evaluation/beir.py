"""Datasets in the layout of BEIR: corpus.jsonl, queries.jsonl, qrels/*.tsv.

Source of the layout: https://github.com/beir-cellar/beir, "Load your custom dataset".
"""

from pathlib import Path
from typing import Any

from qwen3_retrieval.evaluation.dataset import (
    Dataset,
    DatasetError,
    Passage,
    Question,
    check_missing,
)
from qwen3_retrieval.evaluation.lines import fail, read_objects, read_table, text_of

COLUMNS = ("query-id", "corpus-id", "score")


def is_beir(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / "corpus.jsonl").is_file() and (folder / "queries.jsonl").is_file()


def read_beir(folder: Path, split: str | None = None) -> Dataset:
    """Read a dataset.

    Args:
        folder: Folder of the files.
        split: Name in qrels/*.tsv; by default "test", or the only one.

    Raises:
        OSError: If a file cannot be read.
        DatasetError: If a file is malformed, or too many judgements refer to missing items.
    """
    qrels = _find_qrels(folder, split)
    passages = _read_corpus(folder / "corpus.jsonl")
    texts = _read_queries(folder / "queries.jsonl")
    known = {passage.id for passage in passages}
    relevant: dict[str, dict[str, int]] = {}
    missing: list[str] = []
    seen: set[tuple[str, str]] = set()
    for line, row in read_table(qrels, "\t"):
        if tuple(row) != COLUMNS:
            fail(qrels, 1, f"the columns are {list(row)}, not {list(COLUMNS)}")
        query, document = row["query-id"], row["corpus-id"]
        if (query, document) in seen:
            fail(qrels, line, f"query {query!r} and document {document!r} are judged twice")
        seen.add((query, document))
        grade = _grade(row["score"], qrels, line)
        if query not in texts:
            missing.append(f"line {line}: query {query!r}")
        elif document not in known:
            missing.append(f"line {line}: document {document!r}")
        elif grade > 0:
            relevant.setdefault(query, {})[document] = grade
    notes = check_missing(missing, len(seen), qrels)
    questions = [Question(q, texts[q], found) for q, found in relevant.items()]
    return Dataset(
        f"{folder.resolve().name} ({qrels.stem})", "beir", passages, questions, "", notes
    )


def _find_qrels(folder: Path, split: str | None) -> Path:
    found = {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}
    if split is None:
        split = "test" if "test" in found or len(found) != 1 else next(iter(found))
    if split not in found:
        there = ", ".join(found) or "none"
        msg = f"there is no qrels/{split}.tsv in {folder} (splits there: {there})"
        raise DatasetError(msg)
    return found[split]


def _read_corpus(path: Path) -> list[Passage]:
    passages: dict[str, Passage] = {}
    for line, record in read_objects(path):
        key = _id(record, path, line)
        if key in passages:
            fail(path, line, f"the id {key!r} occurs twice")
        title = record.get("title") or ""
        if not isinstance(title, str):
            fail(path, line, f"'title' is a {type(title).__name__}, not a string")
        text = record.get("text")
        if text == "" and title.strip():  # BEIR's own datasets contain some
            text = text_of(record, "title", path, line)
        else:
            text = f"{title}\n{text_of(record, 'text', path, line)}".strip()
        passages[key] = Passage(key, text, key, title=title)
    return list(passages.values())


def _read_queries(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for line, record in read_objects(path):
        key = _id(record, path, line)
        if key in texts:
            fail(path, line, f"the id {key!r} occurs twice")
        texts[key] = text_of(record, "text", path, line)
    return texts


def _id(record: dict[str, Any], path: Path, line: int) -> str:
    if isinstance(record.get("_id"), int):
        return str(record["_id"])
    return text_of(record, "_id", path, line)


def _grade(text: str, path: Path, line: int) -> int:
    try:
        return int(text)
    except ValueError:
        fail(path, line, f"the score {text!r} is no whole number")
