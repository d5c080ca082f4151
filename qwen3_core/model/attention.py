"""Attention over a pack: every segment sees its own prefix and itself, causally, and no more.

Shapes: S keys are the pack's T tokens and, behind them, the prefixes that are known from earlier
packs. Query heads that share a key head are a group; G is their number.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_core.model.buffers import Buffers
from qwen3_core.model.linear import rounded
from qwen3_core.model.packing import Pack
from qwen3_core.tokenizer import Ids

logger = logging.getLogger(__name__)

BLOCK = 96
"""Queries of a segment whose scores are computed at a time: few enough for them to stay in a core's
cache, enough for efficient products. Of 64, 96, 128 and 256 the best on CPUs for most lengths."""

KEYS_STEP = 32
"""Keys that queries are compared with are a multiple of this, the last of them hidden; the number
of different shapes is to be small, as `qwen3_core.model.linear.STEP` says."""


FUSED_FROM = {torch.bfloat16: 64, torch.float32: 4096}
"""Queries of a segment from which on fused attention is clearly faster on CPUs, bfloat16 where they
have AMX."""

FUSED_STEP = 64
"""What fused attention is given is a multiple of this, for the same reason: texts of all lengths
make 25 MiB of programs in each thread, with multiples of 32 nearly three times that."""


class Segment(NamedTuple):
    """Queries that see a prefix and, up to their own places, a run of keys whose last they are."""

    queries: slice
    """Rows of the queries."""
    keys: slice
    """Rows of the keys that end with the queries' own."""
    prefix: tuple[slice, ...] = ()
    """Rows of the keys before those, piece by piece; none of them empty."""
    answers: bool = True
    """Whether a result is read from its last query; not so of what is laid of a prefix."""


def segments_of(pack: Pack[Any], known: Mapping[Ids, slice]) -> list[Segment]:
    """Who sees what in a pack.

    Args:
        pack: The pack.
        known: Where the keys of what is not laid of the prefixes lie.
    """

    def segments() -> Iterator[Segment]:
        for branch in pack.branches:
            prefix = (known[branch.prefix],) if branch.known else ()
            laid = branch.prefix_rows
            if laid.stop > laid.start:
                yield Segment(laid, laid, prefix, answers=False)
                prefix = (*prefix, laid)
            for rows in branch.segments:
                yield Segment(rows, rows, prefix)

    return list(segments())


def last_tokens_of(segments: Sequence[Segment]) -> list[Segment]:
    """Those of a pack that answer, by their last token alone; the queries lie in a row."""
    answering = [s for s in segments if s.answers]
    return [s._replace(queries=slice(i, i + 1)) for i, s in enumerate(answering)]


class Attention(Protocol):
    """Computes the attention of a pack's segments, layer after layer."""

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, buffers: Buffers
    ) -> None:
        """Write the attention output of all queries.

        Args:
            query: (kv_heads, n, G, head_dim), rotated and scaled by 1 / sqrt(head_dim). Rows
                behind the segments' belong to none.
            keys: (kv_heads, S, head_dim), rotated.
            values: (kv_heads, S, head_dim).
            out: (n, kv_heads, G, head_dim), of the query's dtype; what belongs to no segment is
                not written.
            buffers: Memory to work in.
        """


class BlockAttention:
    """Segment by segment and block by block as plain batched products; on any device.

    On CPUs without AMX faster than torch's fused attention, by half in bfloat16 and up to a tenth
    in float32 (segments of up to 1,000 tokens). Memory grows with the longest segment, not with its
    square.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, buffers: Buffers
    ) -> None:
        """See `Attention`."""
        heads, _, group, size = query.shape
        dtype, device = query.dtype, query.device
        hidden = _hidden(dtype, device)
        for rows, own, prefix, _ in self._segments:
            count = rows.stop - rows.start
            pieces = (*prefix, own)
            known = sum(piece.stop - piece.start for piece in pieces)
            shape = (heads, known + -known % KEYS_STEP, size)
            seen_keys, seen_values = (
                _gathered(x, pieces, buffers.take(name, dtype, *shape))
                for name, x in (("seen keys", keys), ("seen values", values))
            )
            earlier = known - count
            for begin in range(0, count, BLOCK):
                end = min(begin + BLOCK, count)
                seen = earlier + end
                seen += -seen % KEYS_STEP
                asked = _block(query, rows.start + begin, end - begin, buffers)
                height = asked.shape[1] // group
                scores = buffers.take("scores", dtype, heads, height * group, seen)
                torch.bmm(asked, seen_keys[:, :seen].transpose(1, 2), out=scores)
                ahead = scores.view(heads, height, group, seen)[..., earlier + begin :]
                ahead += hidden[:height, None, : ahead.shape[-1]]
                torch.softmax(scores, -1, out=scores)
                found = buffers.take("found", dtype, heads, height * group, size)
                torch.bmm(scores, seen_values[:, :seen], out=found)
                answers = found.view(heads, height, group, size)[:, : end - begin]
                out[rows.start + begin : rows.start + end] = answers.transpose(0, 1)


class FusedAttention:
    """Long segments in torch's fused attention, one after the other, all others block by block.

    On CPUs with AMX it takes two thirds of the blocks' time for 1,000 tokens in bfloat16 and half
    for 8,000; in float32, three quarters from 4,000 tokens on.
    """

    def __init__(self, segments: Sequence[Segment], least: int) -> None:
        """Fuse segments of at least so many queries."""
        self._long = [s for s in segments if _fuses(s, least)]
        self._others = BlockAttention([s for s in segments if not _fuses(s, least)])

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, buffers: Buffers
    ) -> None:
        """See `Attention`."""
        self._others(query, keys, values, out, buffers)
        heads, _, group, size = query.shape
        for rows, own, prefix, _ in self._long:
            pieces = (*prefix, own)
            known = sum(piece.stop - piece.start for piece in pieces)
            earlier = known - (rows.stop - rows.start)
            count = known + -known % FUSED_STEP
            asked = query[:, rows]
            if count > asked.shape[1]:
                # As many queries as keys, since causal order is from the first on: those of the
                # prefix are arbitrary, and so are those behind; their answers are not used.
                asked = buffers.take("asked", query.dtype, heads, count, group, size)
                asked[:, earlier:known] = query[:, rows]
            seen_keys, seen_values = (
                _gathered(x, pieces, buffers.take(name, x.dtype, heads, count, size))
                for name, x in (("seen keys", keys), ("seen values", values))
            )
            found = F.scaled_dot_product_attention(
                asked.transpose(1, 2),
                seen_keys[:, None].expand(-1, group, -1, -1),
                seen_values[:, None].expand(-1, group, -1, -1),
                is_causal=True,
                scale=1.0,
            )
            out[rows] = found[:, :, earlier:known].permute(2, 0, 1, 3)


def _fuses(segment: Segment, least: int) -> bool:
    """Whether a segment is a long text, also beside its prefix, of which every token asks.

    In bfloat16 the two ways round differently. So which one a text takes depends on the text and
    its prefix alone: not on what of the prefix is known, nor on other texts.
    """
    count = segment.queries.stop - segment.queries.start
    before = sum(piece.stop - piece.start for piece in segment.prefix)
    own = segment.keys.stop - segment.keys.start
    return segment.answers and bool(own == count >= max(least, 4 * before))


def _gathered(x: Tensor, pieces: Sequence[slice], out: Tensor) -> Tensor:
    """Rows of x, (heads, S, size), one piece after the other, then zeros as far as `out` goes."""
    count = sum(piece.stop - piece.start for piece in pieces)
    if len(pieces) == 1 and count == out.shape[1]:
        return x[:, pieces[0]]
    zeros = x.new_zeros(()).expand(len(x), out.shape[1] - count, x.shape[-1])
    return torch.cat([*(x[:, piece] for piece in pieces), zeros], 1, out=out)


def _block(query: Tensor, begin: int, count: int, buffers: Buffers) -> Tensor:
    """Queries from a row on, (heads, rows * G, head_dim), and what comes to make a usual shape.

    What comes behind the `count` rows is arbitrary; its answers are not used.
    """
    heads, rows, group, size = query.shape
    height = rounded(count)
    if begin + height <= rows:
        return query[:, begin : begin + height].flatten(1, 2)
    block = buffers.take("asked", query.dtype, heads, height, group, size)
    block[:, :count] = query[:, begin : begin + count]
    return block.flatten(1, 2)


@lru_cache
def _hidden(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Minus infinity for each key that comes after a query of the same block."""
    ahead = torch.full((BLOCK, BLOCK + KEYS_STEP), -torch.inf, dtype=dtype, device=device)
    return ahead.triu_(1)


class VarlenAttention:
    """All segments in one call of torch's attention for sequences of unequal lengths; on CUDA.

    Keys that several segments see are repeated for it, since it knows no shared prefixes.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        rows = [[i for piece in (*s.prefix, s.keys) for i in _range(piece)] for s in segments]
        queries = [s.queries.stop - s.queries.start for s in segments]

        def ends(lengths: list[int]) -> Tensor:
            return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)

        self._seen = torch.tensor(list(chain.from_iterable(rows)), device=device)
        self._ends = ends(queries), ends(list(map(len, rows)))
        self._longest = max(queries), max(map(len, rows))
        self._count = sum(queries)

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, buffers: Buffers
    ) -> None:
        """See `Attention`."""
        del buffers
        from torch.nn.attention.varlen import varlen_attn

        found: Any = varlen_attn(
            query[:, : self._count].transpose(0, 1).flatten(1, 2),
            keys.transpose(0, 1)[self._seen],
            values.transpose(0, 1)[self._seen],
            *self._ends,
            *self._longest,
            scale=1.0,
            window_size=(-1, 0),  # causal, the last query beside the last key
            enable_gqa=True,
        )
        out = out[: self._count]
        out.copy_(found.view(out.shape))


def _range(rows: slice) -> range:
    return range(rows.start, rows.stop)


@lru_cache
def _varlen_agrees(
    device: torch.device, dtype: torch.dtype, heads: int, group: int, size: int
) -> bool:
    """Whether the kernel for unequal lengths is there and computes what we mean; tried once."""
    random = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    query, keys, values = (
        tensor(heads, 7, group, size),
        tensor(heads, 9, size),
        tensor(heads, 9, size),
    )
    segments = [
        Segment(slice(0, 3), slice(0, 3)),
        Segment(slice(3, 5), slice(3, 5), (slice(7, 9),)),
        Segment(slice(5, 7), slice(4, 7), (slice(8, 9), slice(0, 3))),
    ]
    expected, found = (torch.empty(7, heads, group, size, device=device, dtype=dtype) for _ in "ab")
    BlockAttention(segments)(query, keys, values, expected, Buffers(device))
    try:
        VarlenAttention(segments, device)(query, keys, values, found, Buffers(device))
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        reason = f"it fails with {error}"
    else:
        distance = (found - expected).abs().max().item()
        if distance < 0.05:  # of values around 1; a key too many or too few makes 0.5 and more
            return True
        reason = f"it is wrong by {distance:.2g}"
    logger.warning(
        "torch %s has no use of its varlen_attn on %s in %s: %s; taking the slower way",
        torch.__version__,
        device,
        dtype,
        reason,
    )
    return False


def attention_for(
    segments: Sequence[Segment],
    *,
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    group: int,
    size: int,
) -> Attention:
    """The fastest attention that a device has.

    Args:
        segments: Who sees what; at least one.
        device: Where the tensors are.
        dtype: Of the tensors.
        heads: Key heads.
        group: Query heads to a key head.
        size: Of a head.
    """
    fused = device.type == "cuda" and dtype != torch.float32  # which the kernel does not take
    if fused and _varlen_agrees(device, dtype, heads, group, size):
        return VarlenAttention(segments, device)
    if device.type == "cpu" and (
        dtype == torch.float32 or (dtype == torch.bfloat16 and _has_amx())
    ):
        return FusedAttention(segments, FUSED_FROM[dtype])
    return BlockAttention(segments)


@lru_cache
def _has_amx() -> bool:
    """Whether the CPU multiplies tiles of bfloat16; False where torch cannot tell."""
    try:
        found: bool = torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    except AttributeError:
        return False
    return found
