"""What `speed.py` measures: texts that look like those users have, and the tasks on them."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.checkpoints import DATA, ROOT
from benchmarks.workload import SHORT, SIZES, Workload

QUESTION = "How is data stored in Milvus?"

SHORTEST, LONGEST = 80, 2000
"""Characters of the shortest and the longest chunk of a list with very different lengths."""

REQUESTS = 40
"""Calls that many callers share."""


class MissingDataError(Exception):
    """The texts of a task are not on this machine; says which."""


def passages(count: int) -> list[str]:
    """The first sections of the examples' corpus."""
    files = sorted((ROOT / "examples" / "corpus").glob("*.md"))
    found = [part for file in files for part in file.read_text("utf-8").split("# ") if part.strip()]
    return (found * (count // len(found) + 1))[:count]


def ragged(count: int, words: tuple[int, int]) -> list[str]:
    """Texts of very different lengths from that corpus, each from another place."""
    chance = random.Random(0)
    text = " ".join(passages(60)).split(" ")
    found = []
    for _ in range(count):
        length, start = chance.randint(*words), chance.randrange(len(text))
        found.append(" ".join((text[start:] + text * (length // len(text) + 1))[:length]))
    return found


def chunks(count: int) -> list[str]:
    """Chunks of 80 to 2,000 characters from that corpus, with as many of each order of magnitude.

    The logarithms of the lengths are evenly spaced, and the order is random.
    """
    chance = random.Random(0)
    text = "\n\n".join(passages(60))
    lengths = np.geomspace(SHORTEST, LONGEST, count).round().astype(int)
    starts = [chance.randrange(len(text) - LONGEST) for _ in lengths]
    found = [text[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    chance.shuffle(found)
    return found


def tutorial() -> list[str]:
    """The candidates of Milvus's tutorial: the ten FAQ chunks that dense search finds first.

    The tutorial cuts the four FAQ files of the Milvus documentation at "# ". The bundled embedding
    model searches here.

    Raises:
        MissingDataError: If the documentation is not on this machine.
    """
    from qwen3_core import Embedder

    folder = DATA / "milvus-docs" / "v2.4.6-preview" / "site" / "en" / "faq"
    files = sorted(folder.glob("*.md"))
    if not files:
        msg = f"no Milvus documentation in {DATA}; set QWEN3_TEST_DATA to a folder that has it"
        raise MissingDataError(msg)
    found = [chunk for file in files for chunk in file.read_text("utf-8").split("# ")]
    embedder = Embedder("tiny", dtype="float32", device="cpu")
    scores = embedder.embed_documents(found) @ embedder.embed_queries([QUESTION])[0]
    return [found[i] for i in np.argsort(-scores, kind="stable")[:10]]


def requests() -> list[tuple[str, list[str]]]:
    """Queries and, for 3 of 10, the passages to rerank, as `benchmarks/load.py` sends them."""
    workload = Workload(SIZES, each=REQUESTS)
    chosen = [workload.requests[i] for i in workload.sample(SHORT, REQUESTS, seed=4)]
    return [(request.query, list(request.documents)) for request in chosen]


@dataclass(frozen=True)
class Task:
    """A method of the systems, and the arguments of its calls."""

    method: str
    title: str
    arguments: Callable[[], tuple[Any, ...]]
    calls: int = 1
    """Calls of a round, of whose seconds the median counts."""


TASKS = {
    "rerank-tutorial": Task(
        "rerank", "rerank the tutorial's 10 candidates", lambda: (QUESTION, tutorial())
    ),
    "rerank-10": Task(
        "rerank", "rerank 10 passages of similar length", lambda: (QUESTION, passages(10))
    ),
    "rerank-50": Task(
        "rerank", "rerank 50 passages of similar length", lambda: (QUESTION, passages(50))
    ),
    "rerank-100": Task(
        "rerank", "rerank 100 passages of similar length", lambda: (QUESTION, passages(100))
    ),
    "rerank-ragged-10": Task(
        "rerank", "rerank 10 chunks of 80-2,000 characters", lambda: (QUESTION, chunks(10))
    ),
    "rerank-ragged-50": Task(
        "rerank", "rerank 50 chunks of 80-2,000 characters", lambda: (QUESTION, chunks(50))
    ),
    "query": Task("query", "embed a query", lambda: (QUESTION,), calls=5),
    "embed-ragged-10": Task(
        "embed", "embed 10 chunks of 80-2,000 characters", lambda: (chunks(10),)
    ),
    "embed-ragged-50": Task(
        "embed", "embed 50 chunks of 80-2,000 characters", lambda: (chunks(50),)
    ),
    "embed-16": Task(
        "embed", "embed 16 passages of 20-500 tokens", lambda: (ragged(16, (14, 340)),)
    ),
    "embed-64": Task(
        "embed", "embed 64 passages of 20-500 tokens", lambda: (ragged(64, (14, 340)),)
    ),
    "embed-512": Task(
        "embed", "embed 512 passages of 20-500 tokens", lambda: (ragged(512, (14, 340)),)
    ),
    "embed-uniform": Task(
        "embed", "embed 32 passages of one length", lambda: (ragged(32, (80, 80)),)
    ),
    "embed-8k-1": Task(
        "embed", "embed a document of 8,192 tokens", lambda: (ragged(1, (7000, 7000)),)
    ),
    "embed-8k": Task(
        "embed", "embed 8 documents of 8,192 tokens", lambda: (ragged(8, (7000, 7000)),)
    ),
    "callers": Task("callers", "8 callers: 25 queries, 15 rerank calls", lambda: (requests(),)),
}
"""By name; of one model the small before the large, because a process keeps memory."""

DEFAULT_TASKS = (
    *("rerank-tutorial", "rerank-ragged-10", "rerank-ragged-50"),
    *("query", "embed-ragged-10", "embed-16", "callers"),
)


def by_model(names: list[str]) -> Iterator[list[str]]:
    """The tasks in groups, of which each needs the same models."""
    model = {"rerank": 0, "embed": 1, "query": 1, "callers": 2}
    for wanted in range(3):
        group = [name for name in TASKS if name in names and model[TASKS[name].method] == wanted]
        if group:
            yield group


def in_turn(turn: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with other first words in every round, because servers cache prefixes.

    The documents of a rerank call stay, since its query comes before them. Round 0 warms up and
    takes 16 texts or requests of a list at most.
    """
    if turn == 0:
        arguments = tuple(part[:16] if isinstance(part, list) else part for part in arguments)
    first, *rest = arguments
    first = (
        [_begun(turn, part) for part in first] if isinstance(first, list) else _begun(turn, first)
    )
    return first, *rest


def _begun(turn: int, part: Any) -> Any:
    if isinstance(part, tuple):
        query, documents = part
        return f"{turn} {query}", documents
    return f"{turn} {part}"
