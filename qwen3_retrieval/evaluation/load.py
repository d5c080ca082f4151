"""A dataset from whatever the user has: BEIR, a table of questions, or just Markdown."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Final

from qwen3_retrieval.evaluation.beir import is_beir, read_beir
from qwen3_retrieval.evaluation.dataset import Dataset, Passage
from qwen3_retrieval.evaluation.folder import read_folder, read_markdown
from qwen3_retrieval.evaluation.tables import SUFFIXES, read_questions

MAX_QUESTIONS: Final = 300
"""Questions that are asked at most; a bootstrap interval of a share is then about 5 points wide on
either side."""


def load_dataset(
    path: str | Path,
    *,
    corpus: str | Path | None = None,
    split: str | None = None,
    max_questions: int | None = MAX_QUESTIONS,
) -> Dataset:
    """Read a dataset; its kind follows from what is there.

    Args:
        path: A folder in BEIR's layout; a .csv, .tsv or .jsonl of questions, each with a passage or
            a source file; or a folder or file of Markdown and text: headings become questions.
        corpus: Folder that a table's passages or files are in.
        split: Which qrels of a BEIR dataset; by default "test", or the only one.
        max_questions: Ask so many at most, drawn at random but always the same; None asks all.

    Raises:
        OSError: If a file or folder is not there or cannot be read.
        DatasetError: If its content cannot be used; names file and line. It is a ValueError.
    """
    path = Path(path).expanduser()
    folder = None if corpus is None else Path(corpus).expanduser()
    if path.is_dir() and is_beir(path):
        dataset = read_beir(path, split)
    elif path.suffix.lower() in SUFFIXES and path.is_file():
        dataset = read_questions(path, folder)
    else:
        dataset = read_markdown(path)
    return sample_questions(dataset, max_questions)


def load_passages(path: str | Path) -> list[Passage]:
    """The passages of a dataset, or of a folder whose headings need not make questions.

    Errors as in `load_dataset`.
    """
    path = Path(path).expanduser()
    if (path.is_dir() and is_beir(path)) or (path.suffix.lower() in SUFFIXES and path.is_file()):
        return load_dataset(path, max_questions=None).passages
    return read_folder(path)[1]


def sample_questions(dataset: Dataset, count: int | None) -> Dataset:
    """The dataset with at most so many of its questions, in their order, with a note if fewer."""
    total = len(dataset.questions)
    if count is None or total <= count:
        return dataset
    chosen = sorted(random.Random(0).sample(range(total), count))
    note = f"{count} of {total} questions are asked, drawn at random (always the same)"
    questions = [dataset.questions[i] for i in chosen]
    return replace(dataset, questions=questions, notes=[*dataset.notes, note])
