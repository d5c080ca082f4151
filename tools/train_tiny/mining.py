"""Pairs for weighing the reranker, and hard negatives for them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .data import Pair
from .embedding import TeacherTargets
from .frames import DEFAULT_TASK
from .model import TinyQwen3, last_states
from .texts import Encoder
from .workspace import Workspace

DOCUMENT_TOKENS = 96
#: A document closer to the query than its own by this much is probably an answer too, if the
#: teacher puts it above the floor.
ANSWER_MARGIN, ANSWER_FLOOR = 0.03, 0.35
#: Near documents are the nearest of so many, drawn for each pair, as if these were all that is
#: searched. The nearest of everything are all nearer than the answer, as if cosines told nothing.
SEARCHED = 300


def choose_pool(workspace: Workspace, targets: TeacherTargets, shares: Sequence[int]) -> list[Pair]:
    """Pairs that the teacher has embedded, ``shares[g]`` of each group of sources."""
    rng = np.random.default_rng(1)
    groups: list[list[Pair]] = [[] for _ in shares]
    skip = ("nl2bash", "dstc9", "wiki-title")
    for pair in workspace.train:
        known = targets.known_query[workspace.queries[pair.query]]
        known &= targets.known_document[workspace.documents[pair.document]]
        if known and pair.source not in skip:
            groups[pair.group].append(pair)
    return [
        members[i]
        for members, share in zip(groups, shares, strict=True)
        for i in rng.permutation(len(members))[:share]
    ]


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


def near_documents(
    workspace: Workspace,
    pool: Sequence[Pair],
    rows: Sequence[int],
    embedding: TinyQwen3,
    encoder: Encoder,
    targets: TeacherTargets,
    count: int,
) -> list[list[int]]:
    """For some pairs, the documents that the embedding model puts nearest, of some of their group.

    Without their own and those that the teacher takes for answers as well.

    Args:
        workspace: Numbers the texts in ``targets``.
        pool: All pairs.
        rows: Those to find documents for, as rows of the pool.
        embedding: The embedding model.
        encoder: Its prompts.
        targets: The teacher's embeddings.
        count: How many documents for each.

    Returns:
        Rows of the pool, nearest first, for each of ``rows``.
    """
    queries, documents = embed(
        embedding, [pool[i].query for i in rows], [p.document for p in pool], encoder
    )
    d = np.array([workspace.documents[p.document] for p in pool])
    q = np.array([workspace.queries[p.query] for p in pool])
    group = np.array([p.group for p in pool])
    teacher_d = torch.from_numpy(targets.documents[d]).float()
    teacher_q = torch.from_numpy(targets.queries[q[rows]]).float()
    teacher = teacher_q @ teacher_d.T
    own = teacher[torch.arange(len(rows)), torch.tensor(rows)]
    answers = teacher > (own + ANSWER_MARGIN).clamp_min(ANSWER_FLOOR)[:, None]
    same = (d[rows, None] == d) | (q[rows, None] == q) | (group[rows, None] != group)
    searched = np.zeros(same.shape, dtype=bool)
    rng = np.random.default_rng(2)
    for row, others in zip(searched, ~same, strict=True):
        row[rng.choice(np.flatnonzero(others), SEARCHED, replace=False)] = True
    near = (queries @ documents.T).masked_fill(answers | torch.from_numpy(~searched), -2)
    found: list[list[int]] = near.topk(count, 1).indices.tolist()
    return found
