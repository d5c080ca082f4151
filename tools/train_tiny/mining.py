"""Hard negatives for the reranker, and the soft relevance it learns."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .data import Pair, words
from .embedding import TeacherTargets
from .frames import DEFAULT_TASK
from .model import TinyQwen3, last_states
from .texts import Encoder
from .workspace import Workspace

DOCUMENT_TOKENS = 96
TOP = 40
#: A document closer to the query than its own by this much is probably an answer too.
ANSWER_MARGIN = 0.03
ANSWER_FLOOR = 0.35
#: Soft relevance of a document: our embedding model's cosine, and these shares of others. Chosen on
#: the development sets, where the sum ranks better than each part.
TEACHER_WEIGHT = 0.5
OVERLAP_WEIGHT = 0.3


@dataclass(frozen=True)
class Candidates:
    """For one training pair: rows of ``pool`` that are hard to tell from the right document."""

    student: list[int]
    teacher: list[int]


class Overlap:
    """Share of a query's words, weighted by inverse document frequency, that a document holds."""

    def __init__(self, documents: Sequence[str]) -> None:
        self.sets = [frozenset(words(d)) for d in documents]
        counts = Counter(word for s in self.sets for word in s)
        size = len(documents)
        self.idf = {word: math.log(1 + size / n) for word, n in counts.items()}
        self.unseen = math.log(1 + size)

    def __call__(self, query: str, row: int) -> float:
        """In [0, 1]; a plural or an inflected last letter still counts."""
        have = self.sets[row]
        total = found = 0.0
        for word in set(words(query)):
            weight = self.idf.get(word, self.unseen)
            total += weight
            stem = len(word) > 4 and (word[:-1] in have or word + "s" in have)
            found += weight * (word in have or stem)
        return found / total if total else 0.0


def choose_pool(workspace: Workspace, targets: TeacherTargets, shares: Sequence[int]) -> list[int]:
    """Indices of pairs that the teacher has embedded, ``shares[g]`` of each group."""
    rng = np.random.default_rng(1)
    pool: list[int] = []
    groups: list[list[int]] = [[] for _ in shares]
    skip = ("nl2bash", "dstc9", "wiki-title")
    for i, pair in enumerate(workspace.train):
        known = targets.known_query[workspace.queries[pair.query]]
        known &= targets.known_document[workspace.documents[pair.document]]
        if known and pair.source not in skip:
            groups[pair.group].append(i)
    for members, share in zip(groups, shares, strict=True):
        order = rng.permutation(len(members))[:share]
        pool += [members[i] for i in order]
    return pool


@torch.no_grad()
def embed(
    embedding: TinyQwen3,
    queries: Sequence[str],
    documents: Sequence[str],
    encoder: Encoder,
    document_tokens: int = DOCUMENT_TOKENS,
) -> tuple[Tensor, Tensor]:
    """Embeddings of queries and documents: float32 (texts, hidden), rows of length 1."""
    ids = encoder.all_ids(list(documents), document_tokens)
    d = last_states(embedding, [[*row, encoder.end] for row in ids])
    rows = encoder.embedded_queries(list(queries), DEFAULT_TASK)
    q = last_states(embedding, rows, encoder.query_head(DEFAULT_TASK))
    return F.normalize(q, dim=-1), F.normalize(d, dim=-1)


def mine(
    workspace: Workspace,
    pairs: Sequence[Pair],
    queries: Tensor,
    documents: Tensor,
    targets: TeacherTargets,
) -> list[Candidates]:
    """Nearest documents of each query inside its group, by student and by teacher.

    Args:
        workspace: Numbers the texts in ``targets``.
        pairs: The pool.
        queries: The student's embeddings of their queries, from ``embed``.
        documents: And of their documents.
        targets: The teacher's.

    Returns:
        One entry per pair; entries are rows of ``pairs``, the right one left out.
    """
    out: list[Candidates] = [Candidates([], [])] * len(pairs)
    for group in sorted({p.group for p in pairs}):
        rows = [r for r, p in enumerate(pairs) if p.group == group]
        own = [pairs[r] for r in rows]
        mined = _mine_group(workspace, own, queries[rows], documents[rows], targets)
        for row, (student, teacher) in zip(rows, mined, strict=True):
            out[row] = Candidates([rows[i] for i in student], [rows[i] for i in teacher])
    return out


def _mine_group(
    workspace: Workspace,
    pairs: list[Pair],
    queries: Tensor,
    documents: Tensor,
    targets: TeacherTargets,
) -> list[tuple[list[int], list[int]]]:
    d = np.array([workspace.documents[p.document] for p in pairs])
    q = np.array([workspace.queries[p.query] for p in pairs])
    teacher_d = torch.from_numpy(targets.documents[d]).float()
    teacher_q = torch.from_numpy(targets.queries[q]).float()
    found = []
    for start in range(0, len(pairs), 1000):
        part = slice(start, start + 1000)
        teacher = teacher_q[part] @ teacher_d.T
        own = teacher[torch.arange(len(teacher)), torch.arange(start, start + len(teacher))]
        limit = (own + ANSWER_MARGIN).clamp_min(ANSWER_FLOOR)[:, None]
        same = torch.from_numpy((d[part, None] == d) | (q[part, None] == q))
        banned = (teacher > limit) | same
        student = (queries[part] @ documents.T).masked_fill(banned, -2)
        count = min(TOP, len(pairs))
        best = student.topk(count, 1).indices.tolist()
        best_teacher = teacher.masked_fill(banned, -2).topk(count, 1).indices.tolist()
        found += list(zip(best, best_teacher, strict=True))
    return found
