"""Attention over a pack: every segment attends causally to its own prefix and to itself.

Shapes: S keys are the pack's T tokens, followed by the cached keys of prefixes. Query heads that
share a key head are a group; G is their number.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_core.model.buffers import Buffers
from qwen3_core.model.linear import rounded
from qwen3_core.model.packing import Pack
from qwen3_core.tokenizer import Ids

BLOCK = 96
"""Query rows computed at a time: few enough for the scores to stay in a core's cache, enough for
efficient matrix products. The best of 64, 96, 128 and 256 on CPUs for most lengths."""

KEYS_STEP = 32
"""Key counts are padded to a multiple of this, and the padding is masked, so that oneDNN compiles
few shapes (see `qwen3_core.model.linear.STEP`)."""

FUSED_FROM = {torch.bfloat16: 64, torch.float32: 4096}
"""Segment length from which torch's fused attention is faster on CPUs (bfloat16: only with AMX)."""

FUSED_STEP = 64
"""Fused attention's sequence length is padded to a multiple of this, for the same reason: texts of
all lengths compile to 25 MiB of kernels per thread, with multiples of 32 to nearly 3 times that."""


class Segment(NamedTuple):
    """Query rows and the keys they may see.

    They see the whole prefix, then the keys up to each query's own position. The queries are the
    last rows of `keys`.
    """

    queries: slice
    """Rows of the queries."""
    keys: slice
    """Rows of the segment's own keys; the last of them are the queries'."""
    prefix: tuple[slice, ...] = ()
    """Rows of the prefix's keys, piece by piece; none of them empty."""
    has_result: bool = True
    """False for prefix tokens: computed, but no result is read."""


def segments_of(pack: Pack[Any], cached_rows: Mapping[Ids, slice]) -> list[Segment]:
    """The segments of a pack: which query rows see which keys.

    Args:
        pack: The pack.
        cached_rows: Rows of the cached keys of each prefix.
    """

    def segments() -> Iterator[Segment]:
        for branch in pack.branches:
            prefix = (cached_rows[branch.prefix],) if branch.cached else ()
            new = branch.prefix_rows
            if new.stop > new.start:
                yield Segment(new, new, prefix, has_result=False)
                prefix = (*prefix, new)
            for rows in branch.segments:
                yield Segment(rows, rows, prefix)

    return list(segments())


def last_tokens_of(segments: Sequence[Segment]) -> list[Segment]:
    """Segments that have a result, reduced to their last query; new query rows 0 ... n-1."""
    with_result = [s for s in segments if s.has_result]
    return [s._replace(queries=slice(i, i + 1)) for i, s in enumerate(with_result)]


class Attention(Protocol):
    """Computes the attention of a pack's segments, layer after layer."""

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, buffers: Buffers
    ) -> None:
        """Write the attention output of all queries.

        Args:
            query: (kv_heads, n, G, head_dim), rotated and scaled by 1 / sqrt(head_dim). Rows after
                the segments' last are padding.
            keys: (kv_heads, S, head_dim), rotated.
            values: (kv_heads, S, head_dim).
            out: (n, kv_heads, G, head_dim), of the query's dtype; padding rows are not written.
            buffers: Scratch memory.
        """


class BlockAttention:
    """Computes attention per segment in query blocks with `torch.bmm`, on any device.

    On CPUs without AMX it takes half the time of torch's fused attention in bfloat16, and up to a
    tenth less in float32 (segments of up to 1,000 tokens). Memory grows with the longest segment,
    not with its square.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, buffers: Buffers
    ) -> None:
        """See `Attention`."""
        heads, _, group, size = query.shape
        dtype, device = query.dtype, query.device
        mask = _causal_mask(dtype, device)
        for rows, own, prefix, _ in self._segments:
            count = rows.stop - rows.start
            pieces = (*prefix, own)
            total = sum(piece.stop - piece.start for piece in pieces)
            shape = (heads, total + -total % KEYS_STEP, size)
            visible_keys, visible_values = (
                _gathered(x, pieces, buffers.take(name, dtype, *shape))
                for name, x in (("visible keys", keys), ("visible values", values))
            )
            earlier = total - count
            for begin in range(0, count, BLOCK):
                end = min(begin + BLOCK, count)
                visible = earlier + end
                visible += -visible % KEYS_STEP
                block = _block(query, rows.start + begin, end - begin, buffers)
                height = block.shape[1] // group
                scores = buffers.take("scores", dtype, heads, height * group, visible)
                torch.bmm(block, visible_keys[:, :visible].transpose(1, 2), out=scores)
                own_scores = scores.view(heads, height, group, visible)[..., earlier + begin :]
                own_scores += mask[:height, None, : own_scores.shape[-1]]
                torch.softmax(scores, -1, out=scores)
                mixed = buffers.take("mixed", dtype, heads, height * group, size)
                torch.bmm(scores, visible_values[:, :visible], out=mixed)
                result = mixed.view(heads, height, group, size)[:, : end - begin]
                out[rows.start + begin : rows.start + end] = result.transpose(0, 1)


class FusedAttention:
    """Computes long segments with torch's fused attention, one by one; others by `BlockAttention`.

    On CPUs with AMX it takes two thirds of the time of `BlockAttention` for 1,000 tokens in
    bfloat16 and half for 8,000; in float32, three quarters from 4,000 tokens on.
    """

    def __init__(self, segments: Sequence[Segment], least: int) -> None:
        """Use fused attention for segments with at least `least` queries."""
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
            total = sum(piece.stop - piece.start for piece in pieces)
            earlier = total - (rows.stop - rows.start)
            count = total + -total % FUSED_STEP
            padded = query[:, rows]
            if count > padded.shape[1]:
                # As many queries as keys, since the kernel's causal mask starts at the first key.
                # The queries of the prefix and of the padding are arbitrary; their results are not
                # used.
                padded = buffers.take("queries", query.dtype, heads, count, group, size)
                padded[:, earlier:total] = query[:, rows]
            visible_keys, visible_values = (
                _gathered(x, pieces, buffers.take(name, x.dtype, heads, count, size))
                for name, x in (("visible keys", keys), ("visible values", values))
            )
            result = F.scaled_dot_product_attention(
                padded.transpose(1, 2),
                visible_keys[:, None].expand(-1, group, -1, -1),
                visible_values[:, None].expand(-1, group, -1, -1),
                is_causal=True,
                scale=1.0,
            )
            out[rows] = result[:, :, earlier:total].permute(2, 0, 1, 3)


def _fuses(segment: Segment, least: int) -> bool:
    """Whether the segment is long, in itself and against its prefix, and all tokens are queries.

    The two kernels round bfloat16 differently. So the choice depends on the text and its prefix
    alone: not on how much of the prefix is cached, nor on other texts in the pack.
    """
    count = segment.queries.stop - segment.queries.start
    before = sum(piece.stop - piece.start for piece in segment.prefix)
    own = segment.keys.stop - segment.keys.start
    return segment.has_result and bool(own == count >= max(least, 4 * before))


def _gathered(x: Tensor, pieces: Sequence[slice], out: Tensor) -> Tensor:
    """Rows of x, (heads, S, size), one piece after the other, then zeros as far as `out` goes."""
    count = sum(piece.stop - piece.start for piece in pieces)
    if len(pieces) == 1 and count == out.shape[1]:
        return x[:, pieces[0]]
    zeros = x.new_zeros(()).expand(len(x), out.shape[1] - count, x.shape[-1])
    return torch.cat([*(x[:, piece] for piece in pieces), zeros], 1, out=out)


def _block(query: Tensor, begin: int, count: int, buffers: Buffers) -> Tensor:
    """`count` query rows from `begin` on, padded: (heads, rows * G, head_dim).

    The padding is arbitrary; its results are not used.
    """
    heads, rows, group, size = query.shape
    height = rounded(count)
    if begin + height <= rows:
        return query[:, begin : begin + height].flatten(1, 2)
    block = buffers.take("queries", query.dtype, heads, height, group, size)
    block[:, :count] = query[:, begin : begin + count]
    return block.flatten(1, 2)


@lru_cache
def _causal_mask(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The causal mask of a block: minus infinity for each key after a query, else 0."""
    mask = torch.full((BLOCK, BLOCK + KEYS_STEP), -torch.inf, dtype=dtype, device=device)
    return mask.triu_(1)


def head_norms(attention: Any) -> Tensor:
    """Norm weights of all query heads, times the softmax scale, and of all key heads.

    Args:
        attention: transformers' attention module of a Qwen3 layer.

    Returns:
        (query heads + key heads, head_dim) float32.
    """
    heads = attention.config.num_key_value_heads
    query = attention.q_norm.weight.detach().float() * attention.scaling
    key = attention.k_norm.weight.detach().float()
    queries = heads * attention.num_key_value_groups
    return torch.cat((query.expand(queries, -1), key.expand(heads, -1)))


def attention_for(
    segments: Sequence[Segment], *, device: torch.device, dtype: torch.dtype
) -> Attention:
    """The fastest of these for a device; `qwen3_core.model.cuda` has another for CUDA.

    Args:
        segments: The pack's segments; at least one.
        device: Where the tensors are.
        dtype: Of the tensors.
    """
    if device.type == "cpu" and (dtype == torch.float32 or (dtype == torch.bfloat16 and has_amx())):
        return FusedAttention(segments, FUSED_FROM[dtype])
    return BlockAttention(segments)


@lru_cache
def has_amx() -> bool:
    """Whether the CPU has AMX (bfloat16 tiles); False if torch cannot tell."""
    try:
        found: bool = torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    except AttributeError:
        return False
    return found
