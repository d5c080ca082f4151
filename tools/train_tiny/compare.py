"""Weights of the reranker: the embedding model inside the reranker's prompt, and shared words.

From random weights, discovering how to compare a query with a document takes far more steps than a
CPU allows. So the weights are set: the network computes what the embedding model would, the cosine
of both texts, and the inverse document frequencies of the words that they have in common.

- layer 0 marks: every token learns whether it stands behind ``<Instruct``, ``<Query``,
  ``<Document`` or ``</think>``; the last token also receives the content of ``<|endoftext|>``, with
  which an embedding ends;
- layer 1 matches words: a document token of the same word as a token of the query reads that
  token's inverse document frequency, and whether the document has had it before; its feed-forward
  passes on the first occurrence of each;
- layers 2 and 3 are those of the embedding model. Masks made of the marks let document tokens and
  the last token see the document alone, and hide everything before the instruction. So the last
  token holds the document's embedding, and ``<Document``, which follows the query, the query's;
- layer 4 compares: the last token reads the mean of both embeddings, which have one length, and
  its feed-forward squares it dimension by dimension: the sum of squares grows with the cosine.
  Beside it stands a large constant, because a norm would else make all sums equal.

The first 256 dimensions of the hidden state are the embedding model's, the next carry the marks,
the last a random code for each word: two tokens are of one word if their codes are equal. Marks and
codes are small beside the content, so that they hardly change what a norm makes of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .model import EPS, Layer, Shape, TinyQwen3

CONTENT, MARKED, CODE = 256, 16, 32
HIDDEN = CONTENT + MARKED + CODE
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
    NOVELTY,
    MATCHED,
    LOUD,
    ANSWER,
) = range(CONTENT, CONTENT + MARKED)
CODES = range(CONTENT + MARKED, HIDDEN)

#: Size of every mark and of the constant. A token's content has a length of about 1.7, and of 2
#: to 4 where an embedding ends.
MARK = 0.01
#: What a norm over HIDDEN dimensions multiplies a token by, about.
SCALE = HIDDEN**0.5 / 1.7
#: Dimensions of a head that rotary positions (theta 1e6) leave unturned over 2,048 tokens ...
STILL = (31, 63, 30, 62, 29, 61)
#: ... and those, one for each of a code, that turn little over a few hundred: equal codes at a
#: distance of 200 tokens have a similarity of 0.98, of 500 tokens 0.93.
SLOW = (*range(14, 30), *range(46, 62))
#: Length of the filler that replaces the content of a token without content.
FILLER = 1.5
#: Similarity of equal codes is 1, of others 0 with a deviation of 0.18; each of the three sinks
#: counts as one of this similarity. For novelty, they together weigh as much as one token.
MATCH_THRESHOLD, NOVELTY_THRESHOLD = 0.65, 0.82
#: Beside the code, a part of a key that is always there, since a token without a code would else
#: consist of rounding errors; and one of a query that makes the similarity count less for novelty.
KEY_BALLAST, NOVELTY_BALLAST = 0.5, 3.0
#: The sinks' share is 1/2 for a word's first token, 1/3 for the second; what exceeds this counts.
NOVELTY_FLOOR, SHARPNESS = 0.25, 200.0
#: First weight of a square.
UNIT = 0.01
#: Dimensions compared: the values of the last layer, but for one each of evidence and constant.
COMPARED = CONTENT - 2
#: What the mean of both embeddings is multiplied by, so that nothing else counts beside it, and the
#: constant beside it; the mean's length is at most 16.
GAIN, LOUDNESS = 8.0, 256.0
#: Heads of the last layer beside the four, one in each group, that read both embeddings.
EVIDENCE_HEAD, LOUD_HEAD = 5, 7


@dataclass(frozen=True)
class FrameIds:
    """Ids of the tokens of the prompt that the start relies on."""

    instruct: int
    query: int
    document: int
    thought_end: int
    #: Attention sinks: tokens without meaning that absorb attention.
    sinks: tuple[int, ...]
    last: int
    end_of_text: int
    yes: int
    no: int
    #: Tokens of this prompt, and their counterparts in an embedded query.
    alike: tuple[tuple[int, int], ...]


def reranker_shape(vocab_size: int) -> Shape:
    """Sizes of the reranker."""
    return Shape(vocab_size, LAYERS, HIDDEN)


@torch.no_grad()
def comparing_start(
    model: TinyQwen3,
    embedding: Mapping[str, Tensor],
    idf: Tensor,
    words: Tensor,
    ids: FrameIds,
) -> None:
    """Set all weights of ``model``, of ``reranker_shape``.

    Args:
        model: Receives the weights.
        embedding: Weights of the embedding model: two layers, hidden 256, same vocabulary.
        idf: float32 (vocab_size,), inverse document frequency in [0, 1].
        words: int64 (vocab_size,), a number for each word; -1 where a token is of none.
        ids: Tokens of the frame.
    """
    for name, weight in model.named_parameters():
        if name.startswith("layers") and weight.dim() == 2:
            weight.zero_()
    embedding = {name: weight.float() for name, weight in embedding.items()}
    tokens = embedding["embed_tokens.weight"]
    _token_embeddings(model, tokens, idf, ids)
    _code(model.embed_tokens.weight, words)
    _mark(model, tokens[ids.end_of_text] - tokens[ids.last], ids)
    _match_words(model.layer(MATCH))
    for layer, source in ((CONTEXT, 0), (POOL, 1)):
        _embed(model, layer, embedding, f"layers.{source}.")
    _compare(model)


@torch.no_grad()
def calibrate(model: TinyQwen3, log_odds: Callable[[], Tensor], size: int) -> list[float]:
    """Weigh squares, constant and evidence.

    What the first two count against each other is what puts answers first in their lists: from
    query to query cosines differ by more than within a list, and tell nothing there. Scale and
    constant then let the log-odds predict what is an answer, answers weighing as much as all else.

    Args:
        model: After ``comparing_start``.
        log_odds: Runs the model on a sample of lists: float32 (lists * size,), each list's answer
            before its other documents.
        size: Documents of a list.

    Returns:
        The weights of squares, constant and evidence.
    """
    layer = model.layer(COMPARE)
    squares = layer.mlp.down_proj.weight[ANSWER]
    constant = squares[2 * COMPARED :]
    evidence = layer.self_attn.o_proj.weight[
        ANSWER, (EVIDENCE_HEAD + 1) * layer.self_attn.width - 1
    ]
    features = [log_odds()]
    for weight, unit in ((constant[0], UNIT), (evidence, LOUDNESS)):
        weight.fill_(unit)
        features.append(log_odds() - features[0])
        weight.fill_(0)
    similar, loud, shared = features
    # a norm precedes them: if one square decreases, the loud constant increases
    share = (torch.cov(torch.stack([similar, loud]))[0] / loud.var())[1].neg()
    steady = (similar + share * loud).mean()
    lists = torch.stack([similar / similar.std(), shared / shared.std()], 1).view(-1, size, 2)
    first = torch.zeros(len(lists), dtype=torch.long)
    order = _minimise(lambda weights: F.cross_entropy(lists @ weights, first))
    scores = lists @ order
    middle = scores.mean()
    answers = torch.zeros(scores.shape)
    answers[:, 0] = 1
    balance = torch.tensor(size - 1.0)
    scale, shift = _minimise(
        lambda weights: F.binary_cross_entropy_with_logits(
            weights[0] * (scores - middle) + weights[1], answers, pos_weight=balance
        )
    )
    constantly = (shift - scale * middle) / steady
    found = [
        float(scale * order[0] / similar.std() + constantly),
        float(constantly * share),
        float(scale * order[1] / shared.std()),
    ]
    squares *= found[0]
    constant[0], evidence[...] = UNIT * found[1], LOUDNESS * found[2]
    return found


def _minimise(loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The two weights for which a convex loss is smallest."""
    with torch.enable_grad():
        weights = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

        def step() -> Tensor:
            optimizer.zero_grad()
            value = loss(weights)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(step)  # type: ignore[no-untyped-call]
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
        *((token, SINK) for token in ids.sinks),
    ):
        table[token, mark], table[token, IDF] = MARK, 0
    table[ids.document, :CONTENT] = tokens[ids.end_of_text]
    # without content a token would consist of its marks; this filler is never read
    empty = [ids.thought_end, *ids.sinks]
    table[empty, :CONTENT] = 0
    table[empty, LOUD] = FILLER
    table[ids.no] = table[ids.yes]
    table[ids.yes, ANSWER], table[ids.no, ANSWER] = 0.5, -0.5
    model.embed_tokens.weight.copy_(table)


def _code(table: Tensor, words: Tensor) -> None:
    """A random direction for each word, of the marks' size."""
    generator = torch.Generator().manual_seed(0)
    codes = F.normalize(torch.randn(int(words.max()) + 1, CODE, generator=generator), dim=1)
    coded = words >= 0
    table[coded, CODES.start :] = codes[words[coded]] * CODE**0.5 * MARK


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
        _only(attention.v_proj.weight, key, 1, {0: _exactly_one(model, token, begins)})
        attention.o_proj.weight[mark, head] = MARK
        if mark == BEHIND_THOUGHT:
            attention.o_proj.weight[:CONTENT, head] = to_end_of_text


def _exactly_one(model: TinyQwen3, token: int, mark: int) -> dict[int, float]:
    """Factors of a token's mark and constant so that their sum is 1 after the norm.

    Masks subtract marks from each other: weights in bfloat16 would leave up to 1/256 of them.
    """
    row = model.embed_tokens.weight[token].bfloat16().float()
    row = row / (row.pow(2).mean() + EPS).sqrt()
    size = (1 / row[mark]).bfloat16().float()
    rest = (1 - size * row[mark]) / row[CONSTANT]
    return {mark: float(size), CONSTANT: float(rest)}


def _match_words(layer: Layer) -> None:
    """Document tokens attend to the query's tokens of the same word, else to the sinks.

    Another head attends to the document's own tokens, themselves included, so that the sinks'
    share falls with a repetition.
    """
    attention, width = layer.self_attn, layer.self_attn.width
    share = attention.heads // attention.groups
    attention.q_norm.weight.fill_(6)
    attention.q_norm.weight[STILL[0]] = 40
    slow = torch.tensor(SLOW)
    unit = MARK * SCALE
    one = CODE**0.5  # length of a code where a mark is 1
    for group, matches in enumerate((True, False)):
        if matches:
            threshold, result, value = MATCH_THRESHOLD, EVIDENCE, {IDF: 1 / unit}
            seen = {QUERY_BEGINS: -1.5, BEHIND_QUERY: 1.5, BEHIND_DOCUMENT: -1.5}
        else:
            threshold, result, value = NOVELTY_THRESHOLD, NOVELTY, {SINK: FILLER / 1.7 / unit}
            seen = {BEHIND_DOCUMENT: 1.5}
        key = {
            STILL[0]: {k: v * one for k, v in ({CONSTANT: -1.5, SINK: 1.5} | seen).items()},
            STILL[1]: {SINK: 0.3 * one * SCALE},
            STILL[3]: {CONSTANT: KEY_BALLAST * one, SINK: -KEY_BALLAST * one},
        }
        query = {STILL[0]: {CONSTANT: 0.15 * one}, STILL[1]: {CONSTANT: threshold * one}}
        if not matches:
            query[STILL[2]] = {CONSTANT: NOVELTY_BALLAST * one}
        keys, queries = group * width, group * share * width
        _only(attention.k_proj.weight, keys, width, key)
        _only(attention.q_proj.weight, queries, width, query)
        attention.k_proj.weight[keys + slow, CODES.start :] = torch.eye(CODE)
        attention.q_proj.weight[queries + slow, CODES.start :] = torch.eye(CODE)
        _only(attention.v_proj.weight, keys, 1, {0: value})
        attention.o_proj.weight[result, queries] = MARK
    new = {NOVELTY: SHARPNESS / unit, CONSTANT: -SHARPNESS * NOVELTY_FLOOR / unit}
    _only(layer.mlp.gate_proj.weight, 0, 1, {0: new})
    _only(layer.mlp.up_proj.weight, 0, 1, {0: {EVIDENCE: 1 / unit}})
    layer.mlp.down_proj.weight[MATCHED, 0] = MARK / SHARPNESS / (0.5 - NOVELTY_FLOOR)


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
    # in the pooling layer few rows do all, and queries and keys are longer than their weights are
    strength = 0.3 / 8 / unit * (1 if index == CONTEXT else 4)
    for group in range(attention.groups):
        rows = slice(group * width, (group + 1) * width)
        size = float(attention.k_proj.weight[rows].norm())
        # what precedes the instruction becomes nothing but a mark that every query shuns
        shun = {CONSTANT: -6 * size / unit, BEHIND_INSTRUCT: 6 * size / unit}
        # what precedes the document keeps its content; only the document's tokens shun it
        size *= strength
        leave = {CONSTANT: -size, BEHIND_DOCUMENT: size} | dict.fromkeys(
            (DOCUMENT_BEGINS, SINK, THOUGHT_ENDS), -size
        )
        for dimension, weights in ((early, shun), (outside, leave)):
            _only(attention.k_proj.weight, group * width + dimension, 1, {0: weights})
    for head in range(attention.heads):
        rows = slice(head * width, (head + 1) * width)
        size = strength * float(attention.q_proj.weight[rows].norm())
        inside = {BEHIND_DOCUMENT: size, DOCUMENT_BEGINS: -size}
        here = {CONSTANT: size}
        if index == POOL:
            # only two tokens pool; the document's rest on what is the same in every input, so that
            # their length, by which a norm divides what they know of words, stays the same too
            here |= {
                BEHIND_DOCUMENT: -2 * size,
                DOCUMENT_BEGINS: 2 * size,
                BEHIND_THOUGHT: 2 * size,
            }
        _only(attention.q_proj.weight, head * width + early, 1, {0: here})
        _only(attention.q_proj.weight, head * width + outside, 1, {0: inside})


def _compare(model: TinyQwen3) -> None:
    """Read the mean of both embeddings, square it, and add the evidence of the words."""
    layer = model.layer(COMPARE)
    attention, mlp, width = layer.self_attn, layer.mlp, layer.self_attn.width
    share = attention.heads // attention.groups
    both, evidence, early = STILL[:3]
    attention.q_norm.weight.fill_(3)
    attention.q_norm.weight[early] = 6
    attention.q_norm.weight[evidence] = 0.7
    # what precedes the instruction is always the same 50 tokens; that they weigh as much as about
    # 1,000 of the document's makes the evidence a sum more than a mean. The document's have a score
    # of 0, since a rounding error is a share of a score; the query's match themselves, and weigh
    # 1/200 of them
    keys = {
        both: {BEHIND_THOUGHT: 100, THOUGHT_ENDS: -100, DOCUMENT_BEGINS: 100},
        evidence: {CONSTANT: 18, BEHIND_INSTRUCT: -78, BEHIND_DOCUMENT: 60},
        early: {CONSTANT: 20, BEHIND_INSTRUCT: -20},
        STILL[3]: {CONSTANT: 20},
    }
    dimensions = iter(range(COMPARED))
    for group in range(attention.groups):
        start, free = group * width, (EVIDENCE_HEAD // share, LOUD_HEAD // share)
        _only(attention.k_proj.weight, start, width, keys)
        _only(attention.v_proj.weight, start, width, {})
        head = group * share
        _only(attention.q_proj.weight, head * width, share * width, {both: {CONSTANT: 1}})
        for i in range(width - (group in free)):
            dimension = next(dimensions)
            attention.v_proj.weight[start + i, dimension] = 1
            attention.o_proj.weight[dimension, head * width + i] = GAIN
    for head, place, value in (
        (EVIDENCE_HEAD, evidence, {MATCHED: 1 / MARK}),
        (LOUD_HEAD, early, {CONSTANT: 1 / (MARK * SCALE)}),
    ):
        _only(attention.q_proj.weight, head * width, width, {place: {CONSTANT: 1}})
        _only(attention.v_proj.weight, (head // share + 1) * width - 1, 1, {0: value})
    attention.o_proj.weight[LOUD, (LOUD_HEAD + 1) * width - 1] = LOUDNESS
    for i in range(COMPARED):
        for unit, sign in ((2 * i, 1.0), (2 * i + 1, -1.0)):
            _only(mlp.gate_proj.weight, unit, 1, {0: {i: sign}})
            _only(mlp.up_proj.weight, unit, 1, {0: {i: sign}})
            mlp.down_proj.weight[ANSWER, unit] = UNIT
    _only(mlp.gate_proj.weight, 2 * COMPARED, 1, {0: {LOUD: 1}})
    _only(mlp.up_proj.weight, 2 * COMPARED, 1, {0: {LOUD: 1}})
    model.norm.weight[ANSWER] = 10


def _only(
    weight: Tensor, start: int, rows: int, entries: Mapping[int, Mapping[int, float]]
) -> None:
    """Make ``rows`` rows from ``start`` zero but for ``entries``: row, then column, to value."""
    weight[start : start + rows] = 0
    for row, columns in entries.items():
        for column, value in columns.items():
            weight[start + row, column] = value
