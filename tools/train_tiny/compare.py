"""First weights of the reranker: the embedding model inside the reranker's prompt.

From random weights, discovering how to compare a query with a document takes far more steps than a
CPU allows. So the network starts as one that already computes what the embedding model would: the
cosine of both texts, cut to half of the dimensions. Training can only add to that.

- layer 0 marks: every token learns whether it stands behind ``<Instruct``, ``<Query``,
  ``<Document`` or ``</think>``; the last token also receives the content of ``<|endoftext|>``, with
  which an embedding ends;
- layer 1 matches words: a document token that equals a token of the query reads that token's
  inverse document frequency, the evidence;
- layers 2 and 3 are those of the embedding model. Masks made of the marks let document tokens and
  the last token see the document alone, and hide everything before the instruction. So the last
  token holds the document's embedding, and ``<Document``, which follows the query, the query's;
- layer 4 compares: the last token reads both, normalised, and its feed-forward multiplies them
  dimension by dimension.

The first 256 dimensions of the hidden state are the embedding model's, the others carry the marks.
The marks are small beside the content, so that they hardly change what a norm makes of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .model import Attention, Shape, TinyQwen3

CONTENT = 256
HALF = CONTENT // 2
HIDDEN = 272
LAYERS = 5
MARKS, MATCH, CONTEXT, POOL, COMPARE = range(LAYERS)
(
    INSTRUCT_BEGINS,
    QUERY_BEGINS,
    DOCUMENT_BEGINS,
    THOUGHT_ENDS,
    SINK,
    CONSTANT,
    BEHIND_INSTRUCT,
    BEHIND_QUERY,
    BEHIND_DOCUMENT,
    BEHIND_THOUGHT,
    EVIDENCE,
    IDF,
    ANSWER,
) = range(CONTENT, CONTENT + 13)

#: Size of every mark and of the constant; a token's content has a length of about 1.7.
MARK = 0.15
#: What a norm over HIDDEN dimensions multiplies a token by, about.
SCALE = HIDDEN**0.5 / 1.7
#: Dimensions of a head that rotary positions (theta 1e6) leave unturned over 2,048 tokens ...
STILL = (31, 63, 30, 62, 29, 61)
#: ... and those that turn little over a few hundred tokens.
SLOW = (*range(13, 30), *range(45, 62))
#: Length of the normalised embeddings in the last layer: what else is there counts little.
LOUDNESS = 10.0
#: Heads of the last layer: four read the two embeddings, these the evidence and a constant.
EVIDENCE_HEAD, SINK_HEAD = 4, 5


@dataclass(frozen=True)
class FrameIds:
    """Ids of the tokens of the prompt that the start relies on."""

    instruct: int
    query: int
    document: int
    thought_end: int
    sink: int
    last: int
    end_of_text: int
    yes: int
    no: int
    #: Tokens of this prompt and those that stand in their place where a query is embedded.
    alike: tuple[tuple[int, int], ...]


def reranker_shape(vocab_size: int) -> Shape:
    """Sizes of the reranker."""
    return Shape(vocab_size, LAYERS, HIDDEN)


@torch.no_grad()
def comparing_start(
    model: TinyQwen3, embedding: Mapping[str, Tensor], idf: Tensor, ids: FrameIds
) -> None:
    """Set all weights of ``model``, of ``reranker_shape``.

    Args:
        model: Receives the weights.
        embedding: Weights of the embedding model: two layers, hidden 256, same vocabulary.
        idf: float32 (vocab_size,), inverse document frequency in [0, 1].
        ids: Tokens of the frame.
    """
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if name.startswith("layers") and weight.dim() == 2:
            # what leads back into the hidden state starts at zero: no noise, but a gradient
            outward = name.endswith(("o_proj.weight", "down_proj.weight"))
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * (0 if outward else 0.02))
    embedding = {name: weight.float() for name, weight in embedding.items()}
    tokens = embedding["embed_tokens.weight"]
    _token_embeddings(model, tokens, idf, ids)
    _mark(model, tokens[ids.end_of_text] - tokens[ids.last], ids)
    _match_words(model.layer(MATCH).self_attn, tokens, generator)
    for layer, source in ((CONTEXT, 0), (POOL, 1)):
        _embed(model, layer, embedding, f"layers.{source}.")
    _compare(model, embedding["norm.weight"])


@torch.no_grad()
def calibrate(model: TinyQwen3, log_odds: Callable[[], Tensor], answers: Tensor) -> list[float]:
    """Weigh product, evidence and a constant so that the first log-odds predict the answers.

    Args:
        model: After ``comparing_start``.
        log_odds: Runs the model on a sample of inputs: float32 (inputs,).
        answers: float32 (inputs,), 1 for an answer, else 0.

    Returns:
        The three weights, found by logistic regression.
    """
    layer = model.layer(COMPARE)
    width, out = layer.self_attn.width, layer.self_attn.o_proj.weight
    product = log_odds()
    features = [product]
    for head, value in ((EVIDENCE_HEAD, 0), (SINK_HEAD, 1)):
        out[ANSWER, head * width + value] = 1
        features.append(log_odds() - product)
        out[ANSWER, head * width + value] = 0
    columns = torch.stack(features, 1)
    scale = columns.abs().mean(0)
    weights = _logistic_regression(columns / scale, answers) / scale
    layer.mlp.down_proj.weight[ANSWER] *= weights[0]
    out[ANSWER, EVIDENCE_HEAD * width] = weights[1]
    out[ANSWER, SINK_HEAD * width + 1] = weights[2]
    found: list[float] = weights.tolist()
    return found


def _logistic_regression(columns: Tensor, answers: Tensor) -> Tensor:
    with torch.enable_grad():
        weights = torch.zeros(columns.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=300)

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.binary_cross_entropy_with_logits(columns @ weights, answers)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _token_embeddings(model: TinyQwen3, tokens: Tensor, idf: Tensor, ids: FrameIds) -> None:
    table = torch.zeros(len(tokens), HIDDEN)
    table[:, :CONTENT] = tokens
    for token, other in ids.alike:
        table[token, :CONTENT] = tokens[other]
    table[:, CONSTANT], table[:, IDF] = MARK, MARK * idf
    for token, mark in (
        (ids.instruct, INSTRUCT_BEGINS),
        (ids.query, QUERY_BEGINS),
        (ids.document, DOCUMENT_BEGINS),
        (ids.thought_end, THOUGHT_ENDS),
        (ids.sink, SINK),
    ):
        table[token, mark], table[token, IDF] = MARK, 0
    table[ids.document, :CONTENT] = tokens[ids.end_of_text]
    table[[ids.thought_end, ids.sink], :CONTENT] = 0
    table[ids.no] = table[ids.yes]
    table[ids.yes, ANSWER], table[ids.no, ANSWER] = 0.5, -0.5
    model.embed_tokens.weight.copy_(table)


def _mark(model: TinyQwen3, to_end_of_text: Tensor, ids: FrameIds) -> None:
    attention = model.layer(MARKS).self_attn
    width, share = attention.width, attention.heads // attention.groups
    attention.q_norm.weight.fill_(1.5)
    for group, (token, begins, mark) in enumerate(
        (
            (ids.instruct, INSTRUCT_BEGINS, BEHIND_INSTRUCT),
            (ids.query, QUERY_BEGINS, BEHIND_QUERY),
            (ids.document, DOCUMENT_BEGINS, BEHIND_DOCUMENT),
            (ids.thought_end, THOUGHT_ENDS, BEHIND_THOUGHT),
        )
    ):
        head, key = group * share * width, group * width
        _only(attention.q_proj.weight, head, width, {STILL[0]: {CONSTANT: 1}})
        marks: dict[int, dict[int, float]] = {STILL[0]: {begins: 10}, STILL[1]: {CONSTANT: 0.3}}
        _only(attention.k_proj.weight, key, width, marks)
        size = model.embed_tokens.weight[token].pow(2).mean().sqrt() / MARK
        _only(attention.v_proj.weight, key, 1, {0: {begins: float(size)}})
        attention.o_proj.weight[mark, head] = MARK
        if mark == BEHIND_THOUGHT:
            attention.o_proj.weight[:CONTENT, head] = to_end_of_text


def _match_words(
    attention: Attention,
    tokens: Tensor,
    generator: torch.Generator,
    threshold: float = 0.8,
    sharpness: float = 3.0,
) -> None:
    """Document tokens look for themselves among the query's tokens, else at the sink.

    Measured on 32 queries: a word that both share passes on 84 % of its frequency, another 6 %.
    """
    width, share = attention.width, attention.heads // attention.groups
    attention.q_norm.weight.fill_(sharpness)
    attention.q_norm.weight[STILL[0]] = 40
    values, vectors = torch.linalg.eigh(torch.cov(tokens.T))
    values = values.clamp_min(values.mean() * 0.05)
    whiten = vectors @ torch.diag((values / values.mean()) ** -0.25) @ vectors.T
    slow = torch.tensor(SLOW)
    for group in range(attention.groups):
        random = torch.randn(CONTENT, len(SLOW), generator=generator)
        project = torch.linalg.qr(random)[0].T @ whiten
        size = float((tokens @ project.T).norm(dim=1).mean()) * SCALE
        one = size / (MARK * SCALE)
        hidden = {CONSTANT: -4, QUERY_BEGINS: -4, BEHIND_QUERY: 4, BEHIND_DOCUMENT: -4, SINK: 4}
        key = {
            STILL[0]: {k: v * one for k, v in hidden.items()},
            STILL[1]: {SINK: 0.3 * size / MARK},
        }
        _only(attention.k_proj.weight, group * width, width, key)
        attention.k_proj.weight[group * width + slow, :CONTENT] = project
        _only(attention.v_proj.weight, group * width, 1, {0: {IDF: 1 / (MARK * SCALE)}})
        for head in range(group * share, (group + 1) * share):
            query = {STILL[0]: {CONSTANT: 0.3 * one}, STILL[1]: {CONSTANT: threshold * one}}
            _only(attention.q_proj.weight, head * width, width, query)
            attention.q_proj.weight[head * width + slow, :CONTENT] = project
            attention.o_proj.weight[EVIDENCE, head * width] = MARK / attention.heads


def _embed(model: TinyQwen3, index: int, source: Mapping[str, Tensor], prefix: str) -> None:
    """A layer of the embedding model, with masks."""
    layer = model.layer(index)
    for name, weight in layer.named_parameters():
        old = source[prefix + name]
        if weight.dim() == 2:
            weight.zero_()
            weight[: len(old), : old.shape[1]] = old
        elif len(weight) == HIDDEN:
            weight.fill_(1)
            # over more dimensions, and with the marks, a norm divides by a little more or less
            weight[:CONTENT] = old * (CONTENT / HIDDEN) ** 0.5 * 1.01
        else:
            weight.copy_(old)
    attention = layer.self_attn
    width = attention.width
    early, outside = (STILL[0], STILL[1]) if index == CONTEXT else (STILL[4], STILL[5])
    unit = MARK * SCALE
    attention.q_norm.weight[[early, outside]] = 60
    attention.k_norm.weight[[early, outside]] = torch.tensor([1.0, 24.0])
    for group in range(attention.groups):
        rows = slice(group * width, (group + 1) * width)
        size = float(attention.k_proj.weight[rows].norm())
        # what precedes the instruction becomes nothing but a mark that every query shuns
        shun = {CONSTANT: -6 * size / unit, BEHIND_INSTRUCT: 6 * size / unit}
        # what precedes the document keeps its content; only the document's tokens shun it
        size *= 0.3 / 8 / unit
        leave = {CONSTANT: -size, BEHIND_DOCUMENT: size, DOCUMENT_BEGINS: -size}
        for dimension, weights in ((early, shun), (outside, leave)):
            _only(attention.k_proj.weight, group * width + dimension, 1, {0: weights})
    for head in range(attention.heads):
        rows = slice(head * width, (head + 1) * width)
        size = 0.3 / 8 / unit * float(attention.q_proj.weight[rows].norm())
        inside = {BEHIND_DOCUMENT: size, DOCUMENT_BEGINS: -size}
        _only(attention.q_proj.weight, head * width + early, 1, {0: {CONSTANT: size}})
        _only(attention.q_proj.weight, head * width + outside, 1, {0: inside})


def _compare(model: TinyQwen3, norm: Tensor) -> None:
    """Read both embeddings, loud enough that nothing else counts, and multiply them."""
    layer = model.layer(COMPARE)
    attention, width = layer.self_attn, layer.self_attn.width
    layer.input_layernorm.weight[:CONTENT] = norm
    attention.q_norm.weight.fill_(3)
    document, query, evidence, sink = STILL[0], STILL[2], STILL[1], STILL[4]
    for group in range(attention.groups):
        keys = {
            document: {BEHIND_THOUGHT: 1.0, THOUGHT_ENDS: -1.0},
            query: {DOCUMENT_BEGINS: 1.0},
            evidence: {BEHIND_DOCUMENT: 0.3, BEHIND_THOUGHT: -0.3, DOCUMENT_BEGINS: -0.3},
            sink: {SINK: 1.0},
            STILL[3]: {CONSTANT: 0.1},
        }
        _only(attention.k_proj.weight, group * width, width, keys)
    identity = torch.eye(HIDDEN)
    attention.v_proj.weight[:HALF] = identity[:HALF]
    values = {0: {EVIDENCE: 1 / (10 * MARK)}, 1: {SINK: 0.1}}
    _only(attention.v_proj.weight, HALF, 2, values)
    for head, place in enumerate((document, query, document, query, evidence, sink)):
        _only(attention.q_proj.weight, head * width, width, {place: {CONSTANT: 1}})
        if head < 4:
            group = head // 2
            start = HALF * (head % 2) + group * width
            out = attention.o_proj.weight[start : start + width, head * width : (head + 1) * width]
            out.copy_(LOUDNESS * torch.eye(width))
    for i in range(HALF):
        for unit, sign in ((2 * i, 1.0), (2 * i + 1, -1.0)):
            layer.mlp.gate_proj.weight[unit] = sign * identity[i]
            layer.mlp.up_proj.weight[unit] = identity[HALF + i]
            layer.mlp.down_proj.weight[:, unit] = sign * 0.01 * LOUDNESS * identity[ANSWER]
    model.norm.weight[ANSWER] = 10


def _only(
    weight: Tensor, start: int, rows: int, entries: Mapping[int, Mapping[int, float]]
) -> None:
    """Make ``rows`` rows from ``start`` zero but for ``entries``: row, then column, to value."""
    weight[start : start + rows] = 0
    for row, columns in entries.items():
        for column, value in columns.items():
            weight[start + row, column] = value
