"""First weights of the reranker: a network that already compares query and document.

From random weights, discovering the comparison takes far more steps than a CPU allows. So the
three-layer network starts with it in place, and training refines it:

- layer 0: heads mark every token behind ``<Query`` and every token behind ``<Document``;
- layer 1: document tokens attend to query tokens of similar content, or else to the first
  ``<|im_start|>``; what they read is the query token's inverse document frequency, the evidence;
- layer 2: the last token averages the document's content, the query's content and the evidence;
  its feed-forward multiplies the two averages dimension by dimension: their inner product;
- head: the difference of the embeddings of "yes" and "no" points along evidence and product.

Content is copied from the bag that the embedding model grew from (bag.py) into the first
dimensions of the hidden state; the last ones carry the marks. The constants below are made for
the inputs that each layer then sees; training is free to change all weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .bag import Bag
from .model import TinyQwen3

CONTENT = 224
HALF = CONTENT // 2
(
    QUERY_BEGINS,
    DOCUMENT_BEGINS,
    ANSWER,
    SINK,
    EVIDENCE,
    IMPORTANCE,
    IN_QUERY,
    IN_DOCUMENT,
    CONSTANT,
) = range(247, 256)

#: Norm of a token's content and size of its constant; all else is relative to these.
CONTENT_NORM = 1.6
CONSTANT_SIZE = 0.5
MARK = 0.8
#: Dimensions of a head that rotary positions (theta 1e6) leave unturned over 2,048 tokens ...
STILL = (31, 63, 30, 62)
#: ... and those that turn little over a few hundred tokens.
SLOW = (*range(13, 30), *range(45, 62))


@dataclass(frozen=True)
class FrameIds:
    """Ids of the tokens of the prompt that the start relies on."""

    query: int
    document: int
    sink: int
    last: int
    yes: int
    no: int
    #: Tokens that belong to the frame: they count next to nothing in an average.
    frame: tuple[int, ...]


#: What a mark, a constant or a content of that size becomes behind the norm of a document token.
NORM_SCALE = 7.9
#: Log weights are stored divided by this: the slope of the gathering scores.
SCORE_SLOPE = 12.0
#: Norms of the two averages relative to a token's content; the document's dominates, so that the
#: norm behind it takes out its length and the product is close to a cosine.
QUERY_SCALE, DOCUMENT_SCALE = 4.0, 12.0
PRODUCT_GAIN = 0.03
EVIDENCE_GAIN = 6.0
EVIDENCE_FOCUS = 0.03
ANSWER_SIZE = 0.5


@torch.no_grad()
def match_start(model: TinyQwen3, bag: Bag, idf: Tensor, ids: FrameIds) -> None:
    """Set all weights of ``model`` (three layers, hidden 256, 8 heads in 4 groups).

    Args:
        model: Receives the weights.
        bag: First stage of the embedding model, same vocabulary.
        idf: float32 (vocab_size,), inverse document frequency in [0, 1].
        ids: Tokens of the frame.
    """
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if name.startswith("layers") and weight.dim() == 2:
            inward = name.endswith(("gate_proj.weight", "up_proj.weight"))
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * (0.03 if inward else 0.004))
    content = _token_embeddings(model, bag, ids, generator)
    _mark_segments(model)
    _match_words(model, content, idf, generator)
    _gather(model)


@torch.no_grad()
def centre(
    model: TinyQwen3, last: int, log_odds: Callable[[], Tensor], steps: int = 3, slope: float = 7.0
) -> None:
    """Shift the last token so that both averages and the mean log-odds are about zero.

    What all inputs share would otherwise drown what tells them apart.

    Args:
        model: After ``match_start``.
        last: Id of the frame's last token.
        log_odds: Runs the model on a sample of inputs.
        steps: Corrections of the averages, then of the log-odds.
        slope: Log-odds that one unit of the answer is worth.
    """
    seen: list[Tensor] = []
    norm = model.layer(2).post_attention_layernorm
    hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(steps):
        seen.clear()
        log_odds()
        mean = torch.cat([x[:, 0] for x in seen if x.shape[1] == 1]).mean(0)
        model.embed_tokens.weight[last, :CONTENT] -= mean[:CONTENT]
    hook.remove()
    for _ in range(steps):
        model.embed_tokens.weight[last, ANSWER] -= log_odds().mean() / slope


def _token_embeddings(
    model: TinyQwen3, bag: Bag, ids: FrameIds, generator: torch.Generator
) -> Tensor:
    table = 0.01 * torch.randn(model.embed_tokens.weight.shape, generator=generator)
    content = CONTENT_NORM * F.normalize(bag.table, dim=1)[:, :CONTENT]
    table[:, :CONTENT] = content
    table[:, QUERY_BEGINS:] = 0
    table[:, CONSTANT] = CONSTANT_SIZE
    table[:, IMPORTANCE] = CONSTANT_SIZE * bag.bounded_log_weight() / SCORE_SLOPE
    table[list(ids.frame), IMPORTANCE] = -0.5 * CONSTANT_SIZE
    table[ids.query, QUERY_BEGINS] = table[ids.document, DOCUMENT_BEGINS] = CONTENT_NORM
    table[ids.sink, :CONTENT] = 0
    table[ids.sink, SINK] = CONTENT_NORM
    bias = bag.bias[:HALF]
    table[ids.last, :CONTENT] = torch.cat((QUERY_SCALE * bias, DOCUMENT_SCALE * bias))
    table[ids.no] = table[ids.yes]
    table[ids.yes, ANSWER] += ANSWER_SIZE
    table[ids.no, ANSWER] -= ANSWER_SIZE
    model.embed_tokens.weight.copy_(table)
    return content


def _mark_segments(model: TinyQwen3) -> None:
    attention = model.layer(0).self_attn
    width, share = attention.width, attention.heads // attention.groups
    attention.q_norm.weight.fill_(1.5)
    for group, begins, mark in (
        (0, DOCUMENT_BEGINS, IN_DOCUMENT),
        (1, QUERY_BEGINS, IN_QUERY),
    ):
        head, key = group * share * width, group * width
        attention.q_proj.weight[head + STILL[0], CONSTANT] = 1
        attention.k_proj.weight[key + STILL[0], begins] = 1
        attention.k_proj.weight[key + STILL[2], CONSTANT] = 0.3
        attention.v_proj.weight[key, begins] = 1 / 11
        attention.o_proj.weight[mark, head] = MARK


def _match_words(
    model: TinyQwen3,
    content: Tensor,
    idf: Tensor,
    generator: torch.Generator,
    whiten: float = 0.5,
    sharpness: float = 1.4,
) -> None:
    attention = model.layer(1).self_attn
    width, share = attention.width, attention.heads // attention.groups
    attention.q_norm.weight.fill_(sharpness)
    query = torch.zeros(len(content), model.shape.hidden_size)
    query[:, :CONTENT] = content
    query[:, CONSTANT] = CONSTANT_SIZE
    query[:, IN_QUERY] = MARK
    query = 16 * F.normalize(query, dim=1)
    values, vectors = torch.linalg.eigh(torch.cov(content.T))
    values = values.clamp_min(values.mean() * 0.05)
    scale = vectors @ torch.diag((values / values.mean()) ** (-whiten / 2)) @ vectors.T
    read = _ridge(query[:, :CONTENT], idf)
    slow = torch.tensor(SLOW)
    for group in range(attention.groups):
        random = torch.randn(CONTENT, len(SLOW), generator=generator)
        project = torch.linalg.qr(random)[0].T @ scale
        size = (query[:, :CONTENT] @ project.T).norm(dim=1).mean()
        key = group * width
        attention.k_proj.weight[key + slow, :CONTENT] = project
        still = attention.k_proj.weight[key + STILL[0]]
        still[SINK] = 1.5 * size / 15
        still[IN_DOCUMENT] = -2 * size / 6.3
        still[IN_QUERY], still[CONSTANT] = 1.0 * size / 6.9, -1.0 * size / 4.3
        attention.v_proj.weight[key, :CONTENT] = read
        for head in range(group * share, (group + 1) * share):
            attention.q_proj.weight[head * width + slow, :CONTENT] = project
            attention.q_proj.weight[head * width + STILL[0], CONSTANT] = 0.6 * size / 4
            attention.o_proj.weight[EVIDENCE, head * width] = 1 / attention.heads


def _gather(model: TinyQwen3) -> None:
    layer = model.layer(2)
    attention = layer.self_attn
    width, share = attention.width, attention.heads // attention.groups
    attention.q_norm.weight.fill_(3.0)
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.mul_(0.25)
    constant, mark = NORM_SCALE * CONSTANT_SIZE, NORM_SCALE * MARK
    identity = torch.eye(model.shape.hidden_size)
    attention.v_proj.weight[:HALF] = identity[:HALF]
    evidence = attention.groups * width - 1
    attention.v_proj.weight[evidence] = identity[EVIDENCE] / NORM_SCALE
    for group in range(attention.groups):
        keys = attention.k_proj.weight[group * width : (group + 1) * width]
        keys[STILL[0], IN_DOCUMENT] = 1 / mark
        keys[STILL[1], IN_QUERY], keys[STILL[1], IN_DOCUMENT] = 1 / mark, -1.3 / mark
        keys[STILL[2], IMPORTANCE] = 1 / constant
        keys[STILL[2], EVIDENCE] = EVIDENCE_FOCUS
        keys[STILL[3], CONSTANT] = 1 / constant
        read = identity[:HALF, group * width : (group + 1) * width]
        read = read / (NORM_SCALE * CONTENT_NORM)
        for kind, rows, scale in (
            (0, slice(HALF, CONTENT), DOCUMENT_SCALE),
            (1, slice(0, HALF), QUERY_SCALE),
        ):
            head = (group * share + kind) * width
            attention.q_proj.weight[head + STILL[kind], CONSTANT] = 1
            attention.q_proj.weight[head + STILL[2], CONSTANT] = 1
            attention.o_proj.weight[rows, head : head + width] = scale * read
    last_document_head = (attention.heads - share + 1) * width - 1
    attention.o_proj.weight[ANSWER, last_document_head] = EVIDENCE_GAIN
    for i in range(HALF):
        for unit, sign in ((2 * i, 1.0), (2 * i + 1, -1.0)):
            layer.mlp.gate_proj.weight[unit] = sign * identity[i]
            layer.mlp.up_proj.weight[unit] = identity[HALF + i]
            layer.mlp.down_proj.weight[:, unit] = sign * PRODUCT_GAIN * identity[ANSWER]


def _ridge(rows: Tensor, target: Tensor, penalty: float = 50.0) -> Tensor:
    """Weights that read ``target`` from ``rows`` linearly."""
    square = rows.T @ rows + penalty * torch.eye(rows.shape[1])
    out: Tensor = torch.linalg.solve(square, rows.T @ target)
    return out
