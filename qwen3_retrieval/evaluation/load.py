"""Loads a dataset: BEIR, a table of questions, or a folder of documents."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from qwen3_core.metadata import check_metadata_keys
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL
from qwen3_retrieval.documents.cutting import CHUNK_OVERLAP, CHUNK_SIZE, Cutter, tokenizer_of
from qwen3_retrieval.evaluation.beir import is_beir, read_beir
from qwen3_retrieval.evaluation.dataset import Dataset, DatasetError
from qwen3_retrieval.evaluation.folder import read_headings
from qwen3_retrieval.evaluation.tables import SUFFIXES, read_questions

MAX_QUESTIONS: Final = 300
"""Default limit of questions; the bootstrap interval of a share is then about 5 points wide on
either side."""


def load_dataset(
    path: str | Path,
    *,
    corpus: str | Path | None = None,
    split: str | None = None,
    max_questions: int | None = MAX_QUESTIONS,
    model: str = DEFAULT_EMBEDDING_MODEL,
    base_url: str | None = None,
    chunk_size: int = CHUNK_SIZE,
    chunk_overlap: int = CHUNK_OVERLAP,
    metadata_keys: Sequence[str] = (),
    leave_out: Sequence[Path] = (),
) -> Dataset:
    """Read a dataset; detects its kind.

    Args:
        path: A folder in BEIR's layout; a .csv, .tsv or .jsonl of questions, each with a passage or
            a source file; or a folder or file of documents, read like in an ingest, whose headings
            become questions.
        corpus: Folder of a table's passages or files.
        split: Name of the qrels of a BEIR dataset; by default "test", or the only one.
        max_questions: The most questions, sampled with a fixed seed; None takes all.
        model: Embedding model; its tokenizer measures a folder's passages.
        base_url: Server that runs the model; `model` may then be an alias.
        chunk_size: The most tokens of a folder's passages, as in an ingest.
        chunk_overlap: The most tokens that a passage repeats from the previous one.
        metadata_keys: Metadata that the models read before each passage of a folder, as in an
            ingest.
        leave_out: Files of a folder to omit.

    Raises:
        OSError: If a file or folder is missing or cannot be read.
        DatasetError: If its content is invalid; names file and line. It is a ValueError.
    """
    path = Path(path).expanduser()
    folder = None if corpus is None else Path(corpus).expanduser()
    cutter = Cutter(tokenizer_of(model, base_url), "structure", chunk_size, chunk_overlap)
    keys = check_metadata_keys(metadata_keys) or ()
    if path.is_dir() and is_beir(path):
        if keys:
            msg = f"{path}: texts in BEIR's layout begin with their title: leave out metadata_keys"
            raise DatasetError(msg)
        dataset = read_beir(path, split)
    elif path.suffix.lower() in SUFFIXES and path.is_file():
        dataset = read_questions(path, cutter, folder, leave_out, keys)
    else:
        dataset = read_headings(path, cutter, leave_out, keys)
    if keys:
        note = f"the models read {', '.join(keys)} before each passage"
        dataset = replace(dataset, notes=[*dataset.notes, note])
    return sample_questions(dataset, max_questions)


def sample_questions(dataset: Dataset, count: int | None) -> Dataset:
    """The dataset with at most `count` of its questions, in order; notes if any are omitted."""
    total = len(dataset.questions)
    if count is None or total <= count:
        return dataset
    chosen = sorted(random.Random(0).sample(range(total), count))
    note = f"{count} of {total} questions are asked, drawn at random (always the same)"
    questions = [dataset.questions[i] for i in chosen]
    return replace(dataset, questions=questions, notes=[*dataset.notes, note])
