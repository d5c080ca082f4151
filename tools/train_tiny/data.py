"""Read the training pairs, hold out development sets, and vary queries."""

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Sources whose names begin so form one group; batches and negatives are drawn inside a group.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("milvus", "pymilvus"),
    ("python", "docstr", "stdlib", "perlfaq", "nl2bash", "mtrag"),
    ("medquad", "pubmedqa"),
    ("",),
)
SHINGLE_WORDS = 8
MAX_SHARED_SHINGLES = 2
#: One in this many documents, with all its pairs, is not used to train the embedding model: on its
#: training data its cosines look more reliable than they are, and the reranker has to weigh them.
KEPT_FROM_TRAINING = 64
DEV_QUERIES = 150

_VERBS = re.compile(
    r"^(create|build|use|install|configure|deploy|run|set|get|load|insert|delete|drop|search|"
    r"connect|add|check|enable|disable|manage|upgrade|update|query|define|perform|start|stop|"
    r"import|export|scale|monitor|back ?up|restore|write|read|list|choose|prepare|embed|store|"
    r"parse|return|convert|find|print|display|copy|remove|compute|show)\b",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Pair:
    """A query and the passage that answers it."""

    source: str
    query: str
    document: str
    group: int


@dataclass(frozen=True)
class DevSet:
    """One development domain: ``gold[i]`` is the index of the document that answers query i."""

    name: str
    queries: list[str]
    documents: list[str]
    gold: list[int]


def words(text: str) -> list[str]:
    """Lower-case ASCII words and numbers."""
    return _WORDS.findall(text.lower())


def load_pairs(path: Path) -> list[Pair]:
    """Read ``pairs.jsonl.gz`` (keys ``s`` source, ``q`` query, ``d`` document)."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Pair(
            source=row["s"],
            query=re.sub(r" docstr-\w+$", "", row["q"]),
            document=row["d"],
            group=next(i for i, names in enumerate(GROUPS) if row["s"].startswith(names)),
        )
        for row in rows
    ]


def split(pairs: Sequence[Pair]) -> tuple[list[Pair], list[DevSet]]:
    """Hold out development sets; pairs that share text with them leave the training set.

    The milvus and python domains hold every section whose heading is a question (closest to a FAQ),
    milvus also a share of other sections; the other domains hold a share of their documents, chosen
    by a hash of the text.

    Returns:
        Training pairs and the development sets.
    """
    chosen: dict[str, dict[str, str]] = {"milvus": {}, "python": {}, "medical": {}, "wiki": {}}
    for pair in pairs:
        domain = _dev_domain(pair)
        if domain and pair.document not in chosen[domain]:
            chosen[domain][pair.document] = pair.query
    dev = []
    for name, queries in chosen.items():
        ordered = sorted(queries, key=lambda d: (not queries[d].endswith("?"), _digest(d)))
        documents = ordered[: 2 * DEV_QUERIES]
        unique = {queries[d].lower(): i for i, d in reversed(list(enumerate(documents)))}
        gold = sorted(unique.values())[:DEV_QUERIES]
        rng = random.Random(0)
        asked = [as_question(queries[documents[i]], rng, always=True) for i in gold]
        dev.append(DevSet(name, asked, documents, gold))
    held_out = {s for queries in chosen.values() for d in queries for s in _shingles(d)}
    train = [p for p in pairs if len(_shingles(p.document) & held_out) < MAX_SHARED_SHINGLES]
    return [p for p in train if all(p.document not in q for q in chosen.values())], dev


def kept_from_training(pair: Pair) -> bool:
    """Whether a training pair is reserved for weighing the reranker."""
    return _digest(pair.document) % KEPT_FROM_TRAINING == KEPT_FROM_TRAINING - 1


def as_question(query: str, rng: random.Random, *, always: bool = False) -> str:
    """Make a question of a heading; questions stay as they are.

    Args:
        query: A heading or a question.
        rng: Chooses the wording.
        always: Without it, about half of the headings stay headings.
    """
    if query.endswith("?") or len(query) >= 90 or not (always or rng.random() < 0.45):
        return query
    heading = query.rstrip(".")
    if _VERBS.match(heading):
        heading = heading[0].lower() + heading[1:]
        forms = ["How to {}?", "How do I {}?", "How can I {}?", "how to {}", "Can I {}?"]
    else:
        forms = ["What is {}?", "How does {} work?", "{}?", "What are {}?", "Why {}?"]
    return rng.choice(forms).format(heading)


def vary_query(pair: Pair, rng: random.Random) -> str:
    """A query as people type it: headings become questions, case and question mark vary."""
    query = as_question(pair.query, rng) if pair.group <= 1 else pair.query
    if rng.random() < 0.2:
        query = query.lower()
    if rng.random() < 0.15:
        query = query.rstrip("?. ")
    return query


def unique_texts(groups: Iterable[Iterable[str]]) -> dict[str, int]:
    """Number distinct texts in the order of first appearance."""
    index: dict[str, int] = {}
    for texts in groups:
        for text in texts:
            index.setdefault(text, len(index))
    return index


def _dev_domain(pair: Pair) -> str | None:
    question = "?" in pair.query
    share = _digest(pair.document) % 100
    if pair.source == "milvus" and (question or (share < 5 and len(pair.query.split()) > 3)):
        return "milvus"
    if pair.source == "python-doc" and (question or (share < 5 and len(pair.query.split()) > 3)):
        return "python"
    if pair.source == "medquad" and share < 3:
        return "medical"
    if pair.source in ("squad2", "nq", "afriqa") and share < 3:
        return "wiki"
    return None


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _shingles(text: str) -> set[int]:
    tokens = words(text)
    spans = range(max(1, len(tokens) - SHINGLE_WORDS + 1))
    return {hash(tuple(tokens[i : i + SHINGLE_WORDS])) for i in spans}
