"""Attention over a pack: every segment sees its own prefix and itself, causally, and no more."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_core.packing import Branch, Ids, Pack

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of a prefix in one layer, each (1, kv_heads, prefix length, head_dim)."""


GROUPED_HEADS = frozenset({"cpu"})
"""Devices whose kernels take fewer key heads than query heads. Elsewhere keys are repeated: with a
mask, CUDA's fast kernels do not, and the one that does needs memory quadratic in the length."""


BLOCK = 2048
"""Tokens of a segment that are computed at a time where that takes a mask, whose memory is the
product of these and all that they see."""


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float, **kwargs: Any) -> Tensor:
    groups = query.shape[1] // keys.shape[1]
    grouped = query.device.type in GROUPED_HEADS
    if not grouped:
        keys, values = (t.repeat_interleave(groups, dim=1) for t in (keys, values))
    return F.scaled_dot_product_attention(
        query, keys, values, scale=scale, enable_gqa=grouped and groups > 1, **kwargs
    )


def _prefix_of(
    branch: Branch, keys: Tensor, values: Tensor, known: Mapping[Ids, KeysValues]
) -> KeysValues | None:
    """The keys and values that the branch's segments see before their own, if any."""
    if branch.joined or not branch.prefix:
        return None
    rows = branch.prefix_rows
    if rows.start == rows.stop:
        return known[branch.prefix]
    return keys[:, :, rows], values[:, :, rows]


def packed_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    pack: Pack[Any],
    known: Mapping[Ids, KeysValues],
    scale: float,
) -> Tensor:
    """Attention output of every token of the pack.

    Args:
        query: (1, heads, T, head_dim) for the pack's T tokens, rotated.
        keys: (1, kv_heads, T, head_dim), rotated.
        values: (1, kv_heads, T, head_dim).
        pack: Which rows belong together.
        known: This layer's keys and values of the prefixes that are not laid in the pack.
        scale: Factor on the scores, 1 / sqrt(head_dim).

    Returns:
        (1, heads, T, head_dim), of the query's dtype.
    """
    out = torch.empty_like(query)
    for branch in pack.branches:
        rows = branch.prefix_rows
        if rows.stop > rows.start and not branch.joined:
            out[:, :, rows] = _attend(
                query[:, :, rows], keys[:, :, rows], values[:, :, rows], scale, is_causal=True
            )
        prefix = _prefix_of(branch, keys, values, known)
        for rows in branch.segments:
            k, v = keys[:, :, rows], values[:, :, rows]
            if prefix is None:
                out[:, :, rows] = _attend(query[:, :, rows], k, v, scale, is_causal=True)
                continue
            k, v = torch.cat((prefix[0], k), 2), torch.cat((prefix[1], v), 2)
            for begin in range(rows.start, rows.stop, BLOCK):
                end = min(begin + BLOCK, rows.stop)
                before = prefix[0].shape[2] + begin - rows.start
                seen = before + end - begin
                mask = torch.ones(end - begin, seen, dtype=torch.bool, device=query.device)
                out[:, :, begin:end] = _attend(
                    query[:, :, begin:end],
                    k[:, :, :seen],
                    v[:, :, :seen],
                    scale,
                    attn_mask=mask.tril_(before),
                )
    return out


def last_token_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    pack: Pack[Any],
    known: Mapping[Ids, KeysValues],
    scale: float,
) -> Tensor:
    """Attention output of each segment's last token only, which sees all of its segment.

    Args:
        query: (1, heads, n, head_dim) for the last tokens of the pack's n segments, in order.
        keys: As in `packed_attention`, for all tokens.
        values: As in `packed_attention`, for all tokens.
        pack: Which rows belong together.
        known: As in `packed_attention`.
        scale: As in `packed_attention`.

    Returns:
        (1, heads, n, head_dim), of the query's dtype.
    """
    out = torch.empty_like(query)
    i = 0
    for branch in pack.branches:
        prefix = _prefix_of(branch, keys, values, known)
        for rows in branch.segments:
            k, v = keys[:, :, rows], values[:, :, rows]
            if prefix is not None:
                k, v = torch.cat((prefix[0], k), 2), torch.cat((prefix[1], v), 2)
            out[:, :, i : i + 1] = _attend(query[:, :, i : i + 1], k, v, scale)
            i += 1
    return out
