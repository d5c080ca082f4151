"""Cascade attention with torch's flash attention, for the forward pass on CUDA devices.

`varlen_attn` computes attention for sequences of unequal lengths, but does not support shared
prefixes. One call computes all segments' attention to their own keys, another the attention to
prefixes, and the results are merged by log-sum-exp. So no prefix keys are copied per segment.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qwen3_core.model.attention import BlockAttention, last_tokens_of, segments_of
from qwen3_core.model.buffers import Buffers
from qwen3_core.model.packing import Pack, TokenSequence, Work, next_pack
from qwen3_core.tokenizer import Ids

logger = logging.getLogger(__name__)

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of a prefix in one layer, each (kv_heads, prefix length, head_dim)."""

Merge = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`merged`, possibly compiled."""


class Call(NamedTuple):
    """The sequences of one call of `varlen_attn`: queries of a pack and their visible keys."""

    rows: tuple[slice, ...]
    """Rows of the queries, one slice after the other."""
    query_ends: Any
    """Cumulative query lengths (cu_seqlens_q), starting with 0: a list, or an int32 tensor."""
    key_ends: Any
    """Cumulative key lengths (cu_seqlens_k), starting with 0."""
    longest: tuple[int, int]
    """Upper bounds of the query and key lengths (max_seqlen_q, max_seqlen_k)."""


def _call(sequences: Sequence[tuple[slice, int]], used: int = 0, count: int = 0) -> Call:
    """A call for at least one sequence, each given as query rows and a number of keys.

    If the sequences end at row `used`, the last one also gets the padding rows, up to `count`.
    """
    rows, keys = [piece for piece, _ in sequences], [number for _, number in sequences]
    if rows[-1].stop == used:
        rows[-1] = slice(rows[-1].start, count)
    lengths = [piece.stop - piece.start for piece in rows]
    adjacent: list[slice] = []
    for piece in rows:
        if adjacent and adjacent[-1].stop == piece.start:
            adjacent[-1] = slice(adjacent[-1].start, piece.stop)
        else:
            adjacent.append(piece)
    # With max_seqlen_q = 1, flash attention may take a decoding path, which requires exactly one
    # query per sequence.
    longest = (max(2, *lengths), max(keys))
    return Call(tuple(adjacent), [0, *accumulate(lengths)], [0, *accumulate(keys)], longest)


class Calls(NamedTuple):
    """The calls of `varlen_attn` that make up the attention of a pack's layer."""

    own: Call
    """Each segment's queries see its own keys, causally. Prefixes are segments too."""
    new: Call | None
    """The branches' queries see the keys of their prefix that this pack computes."""
    cached: Call | None
    """The branches' queries, and the new tokens of their prefixes, see the cached keys."""


def calls_of(pack: Pack[Any], count: int, *, last: bool = False) -> Calls:
    """The calls for a pack, with lists in place of tensors.

    Args:
        pack: The pack.
        count: Rows of the queries, the padding included.
        last: Whether only the last token of each segment is a query, as in the last layer; query
            rows are then numbered in the order of `pack.members`.
    """
    own: list[tuple[slice, int]] = []
    new: list[tuple[slice, int]] = []
    cached: list[tuple[slice, int]] = []
    row = 0
    for branch in pack.branches:
        begin, computed = row, branch.prefix_rows.stop - branch.prefix_rows.start
        if computed:
            row += 0 if last else computed
            own.append((slice(begin, row), computed))
        first = row
        for segment in branch.segments:
            keys = segment.stop - segment.start
            own.append((slice(row, row := row + (1 if last else keys)), keys))
        if computed:
            new.append((slice(first, row), computed))
        if branch.cached:
            cached.append((slice(begin, row), branch.cached))
    prefixes = [_call(some, row, count) if some else None for some in (new, cached)]
    return Calls(_call(own), *prefixes)


def to_device(device: torch.device, *lists: Sequence[int]) -> tuple[Tensor, ...]:
    """Lists of integers as int32 tensors on a device, in a single asynchronous transfer."""
    numbers = torch.tensor(
        list(chain.from_iterable(lists)), dtype=torch.int32, pin_memory=device.type == "cuda"
    )
    sizes = [len(numbers) for numbers in lists]
    return torch.split(numbers.to(device, non_blocking=True), sizes)


def sent(
    device: torch.device, calls: Sequence[Calls], *lists: Sequence[int]
) -> tuple[list[Calls], tuple[Tensor, ...]]:
    """Calls with tensors in place of lists, and more lists as tensors, in one transfer."""
    ends = [
        e for every in calls for call in every if call for e in (call.query_ends, call.key_ends)
    ]
    tensors = to_device(device, *ends, *lists)
    arrived = iter(tensors)

    def with_tensors(call: Call) -> Call:
        return call._replace(query_ends=next(arrived), key_ends=next(arrived))

    found = [
        Calls(with_tensors(own), new and with_tensors(new), cached and with_tensors(cached))
        for own, new, cached in calls
    ]
    return found, tensors[len(ends) :]


def merged(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the attention to two sets of keys.

    Args:
        out: Attention to one set, (rows, heads, head_dim).
        lse: Log-sum-exp of its scores, (heads, rows) float32.
        other: As out, for the other set.
        other_lse: As lse, for the other set.
    """
    share = torch.sigmoid(lse - other_lse).T[..., None]
    mixed = torch.lerp(other.float(), out.float(), share)
    # When compiled, the transposed shares would otherwise make the result non-contiguous.
    return mixed.to(out.dtype).contiguous(), torch.logaddexp(lse, other_lse)


def flash(
    query: Tensor, keys: Tensor, values: Tensor, call: Call, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention of sequences, (n, query heads, head_dim), and its log-sum-exp (query heads, n).

    Rows of the query that belong to no sequence get arbitrary results.
    """
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    found: Any = varlen_attn(
        query,
        keys,
        values,
        call.query_ends,
        call.key_ends,
        *call.longest,
        return_aux=AuxRequest(lse=True),
        scale=1.0,
        window_size=(-1, 0 if causal else -1),  # causal: the last query sees the last key
        enable_gqa=True,
    )
    out, lse = found
    return out, lse


def attend(
    calls: Calls,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    new: Sequence[slice],
    cached: Sequence[KeysValues],
    merge: Merge = merged,
) -> Tensor:
    """The attention of a pack's layer: to own keys, then merged with that to prefixes.

    Args:
        calls: The pack's calls, with tensors.
        query: (n, query heads, head_dim), rotated and scaled by 1 / sqrt(head_dim).
        keys: (T, kv_heads, head_dim), rotated.
        values: (T, kv_heads, head_dim).
        new: Rows of the keys of each prefix in `calls.new`.
        cached: Keys and values of each prefix in `calls.cached`.
        merge: Merges two results; see `merged`.

    Returns:
        (n, query heads, head_dim); the rows of padding are arbitrary.
    """
    out, lse = flash(query, keys, values, calls.own, causal=True)
    prefixes = [
        (calls.new, [(keys[rows], values[rows]) for rows in new]),
        (calls.cached, [(k.transpose(0, 1), v.transpose(0, 1)) for k, v in cached]),
    ]
    for call, pieces in prefixes:
        if call is None:
            continue
        their_keys, their_values = (together(x) for x in zip(*pieces, strict=True))
        queries = together([query[rows] for rows in call.rows])
        other, other_lse = flash(queries, their_keys, their_values, call, causal=False)
        if call.rows != (slice(0, len(query)),):
            other, other_lse = _spread(call.rows, other, other_lse, len(query))
        out, lse = merge(out, lse, other, other_lse)
    return out


def _spread(rows: Sequence[slice], out: Tensor, lse: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Attention of some rows among `count` rows; the others' has no weight in `merged`."""
    wide = out.new_zeros(count, *out.shape[1:])
    wide_lse = lse.new_full((len(lse), count), -torch.inf)
    begin = 0
    for piece in rows:
        part = slice(begin, begin := begin + piece.stop - piece.start)
        wide[piece], wide_lse[:, piece] = out[part], lse[:, part]
    return wide, wide_lse


def together(pieces: Sequence[Tensor]) -> Tensor:
    """The rows of one tensor after the other; copied only if there are several."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


@lru_cache
def flash_agrees(
    device: torch.device, dtype: torch.dtype, heads: int, group: int, size: int
) -> bool:
    """Whether `varlen_attn` exists and `attend` agrees with block attention; tested once."""
    reason = _failure(_sample(device, dtype, heads, group, size))
    if reason is not None:
        logger.warning(
            "varlen_attn of torch %s is unusable on %s in %s (%s); falling back to block attention",
            torch.__version__,
            device,
            dtype,
            reason,
        )
    return reason is None


class _Sample(NamedTuple):
    """A pack with prefixes that are new, partly cached and cached, and a layer's tensors."""

    pack: Pack[Any]
    query: Tensor
    """(n, query heads, head_dim), with `PADDING` rows at the end."""
    keys: Tensor
    """(n, kv_heads, head_dim), likewise."""
    values: Tensor
    cached: dict[Ids, KeysValues]
    """Keys and values of the cached prefixes, in the order of the pack's branches."""


PADDING = 3
"""Rows at the end of a sample's tensors that belong to no sequence."""


def _sample(device: torch.device, dtype: torch.dtype, heads: int, group: int, size: int) -> _Sample:
    random = torch.Generator().manual_seed(0)

    def tensor(*shape: int, scale: float = 1) -> Tensor:
        return torch.randn(shape, generator=random).mul_(scale).to(device, dtype)

    known = {(1, 2, 3, 4): 4, (5, 6, 7): 2}
    sequences = [
        *(TokenSequence(prefix, (8, 9)) for prefix in (*known, (8, 9, 9))),
        TokenSequence((), (1, 2, 3)),
        TokenSequence((5, 6, 7), (8,)),
    ]
    pack = next_pack([([Work(sequences)], 100)], lambda prefix: known.get(prefix, 0))
    cached = {
        prefix: (tensor(heads, n, size), tensor(heads, n, size)) for prefix, n in known.items()
    }
    count = len(pack.ids) + PADDING
    query = tensor(count, group * heads, size, scale=size**-0.5)
    keys, values = tensor(count, heads, size), tensor(count, heads, size)
    return _Sample(pack, query, keys, values, cached)


def _failure(sample: _Sample) -> str | None:
    """What is wrong with `attend`, or None: it is compared with block attention in float32."""
    pack, query, keys, values, cached = sample
    device, total = query.device, len(pack.ids)
    kv_heads, size = keys.shape[1:]
    rows: dict[Ids, slice] = {}  # of the cached keys, after the pack's own
    stop = total
    for prefix, (known, _) in cached.items():
        rows[prefix] = slice(stop, stop := stop + known.shape[1])
    segments = segments_of(pack, rows)
    all_keys, all_values = (
        torch.cat((x[:total].transpose(0, 1), *more), 1).float()
        for x, more in zip((keys, values), zip(*cached.values(), strict=True), strict=True)
    )
    prefixes = [branch.prefix_rows for branch in pack.branches]
    new = [prefix for prefix in prefixes if prefix.stop > prefix.start]
    for last in (False, True):
        queries = query[: len(pack.members) + PADDING] if last else query
        some = len(queries) - PADDING
        grouped = queries[:some].float().view(some, kv_heads, -1, size)
        expected = torch.empty_like(grouped)
        BlockAttention(last_tokens_of(segments) if last else segments)(
            grouped.transpose(0, 1), all_keys, all_values, expected, Buffers(device)
        )
        try:
            (calls,), _ = sent(device, [calls_of(pack, len(queries), last=last)])
            found = attend(calls, queries, keys, values, new, list(cached.values()))[:some]
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            return f"it fails with {first_line(error)}"
        distance = (found - expected.flatten(1, 2)).abs().max().item()
        # Of values around 1: rounding changes them by 0.013, a wrong key or merge by 0.2 or more.
        if not distance < 0.05:
            return f"it is wrong by {distance:.2g}"
    return None


def first_line(error: BaseException) -> str:
    """The first non-blank line of an error's text; its class if there is none."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
