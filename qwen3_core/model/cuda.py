"""The forward pass on CUDA devices with flash attention: few kernels, each over a whole pack.

Starting a kernel takes Python and the driver several microseconds, as long as a small kernel runs.
`qwen3_core.model.layers` starts about thirty for each layer and block of rows. This pass starts
nine for each layer, eleven if the pack has prefixes:

- torch's `varlen_attn` computes all segments' attention to their own keys in one call, and all
  attention to prefixes in another. Their results are merged by log-sum-exp (cascade attention), so
  no keys are copied for each segment.
- `torch.compile` fuses the sum of the residual stream with the next norm, the norms and rotation of
  all heads, and SwiGLU.
- All numbers of a pack go to the device in one transfer from pinned memory.

Both are tried and compared before their first use. Everything here runs on any device, except for
`varlen_attn` itself.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_core.model.attention import BlockAttention, last_tokens_of, segments_of
from qwen3_core.model.buffers import Buffers
from qwen3_core.model.linear import projected
from qwen3_core.model.packing import Pack, TokenSequence, Work, next_pack
from qwen3_core.tokenizer import Ids

logger = logging.getLogger(__name__)

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of a prefix in one layer, each (kv_heads, prefix length, head_dim)."""

ROWS_STEP = 16
"""Row counts are padded to a multiple of this: tensor cores multiply tiles of 16 rows, and a
compiled function is never called with a single row, for which torch would compile it again."""

LEAST_PACK_TOKENS, MOST_PACK_TOKENS = 1024, 8192
"""Smallest and largest default token budget of a pack. More than 8,192 tokens do not make products
more efficient, but let a query wait longer for the pack that is running."""

MEMORY_SHARE = 4
"""A pack may take one part in so many of the free memory: another model may be loaded next."""

TRIAL_ROWS = 2048
"""Rows of the tensors that functions are compiled with; a hint for torch, which they do not need
to have later."""


def token_bytes(config: Any, dtype: torch.dtype) -> int:
    """Memory of a forward pass for each token of a pack, in bytes; a little more than it takes.

    With H the hidden size, Q and K the widths of all query heads and of all key heads, I the
    intermediate size, L the number of layers, and b bytes for each number of the dtype:

    - the residual stream in float32, before and after a sum: 8 H
    - the input of a product and its output in the hidden size: 2 b H
    - queries, keys and values, and the rotated queries and keys: b (Q + 2 K) + b (Q + K)
    - attention to own keys, to a prefix, and both merged: 3 b Q
    - gate, up and their product: 3 b I
    - keys and values of all layers, if the token is a prefix's: 2 b K L

    Qwen3-0.6B in bfloat16 (H 1024, Q 2048, K 1024, I 3072, L 28): 172,032 bytes.
    """
    b, shape, layers = dtype.itemsize, shape_of(config), config.num_hidden_layers
    keys = shape.heads * shape.size
    queries = keys * shape.group
    tensors = 5 * queries + 3 * keys + 3 * shape.intermediate + 2 * keys * layers
    return (8 + 2 * b) * shape.hidden + b * tensors


def pack_tokens(free: int, config: Any, dtype: torch.dtype) -> int:
    """The default token budget of a pack on a device with so many free bytes.

    A quarter of the free memory over `token_bytes`, rounded down to a multiple of 1,024, from 1,024
    to 8,192. A pack that still runs out of memory is split (`qwen3_core.engine.worker`). Qwen3-0.6B
    in bfloat16 gets 8,192 with 20 GiB free (31,207 would fit), and 3,072 with 2 GiB (of 3,120).
    """
    tokens = free // MEMORY_SHARE // token_bytes(config, dtype)
    return max(LEAST_PACK_TOKENS, min(tokens - tokens % 1024, MOST_PACK_TOKENS))


def available_memory(device: torch.device) -> int:
    """Bytes on a CUDA device that nobody uses, those that torch keeps for itself included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def to_device(device: torch.device, *lists: Sequence[int]) -> tuple[Tensor, ...]:
    """Lists of integers as int32 tensors on a device, all in one transfer that nobody waits for."""
    numbers = torch.tensor(
        list(chain.from_iterable(lists)), dtype=torch.int32, pin_memory=device.type == "cuda"
    )
    sizes = [len(numbers) for numbers in lists]
    return torch.split(numbers.to(device, non_blocking=True), sizes)


def to_host(x: Tensor) -> Tensor:
    """A tensor in the CPU's memory, through pinned memory; waits until the device has computed."""
    if x.device.type != "cuda":
        return x
    found = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    found.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return found


def normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square norm over the last dimension."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight


def summed(
    x: Tensor, more: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The residual stream after a sum, (rows, hidden) float32, and its norm in another dtype."""
    x = x + more
    return x, normed(x, weight, epsilon).to(dtype)


def rotated(heads: Tensor, weights: Tensor, cos: Tensor, sin: Tensor, epsilon: float) -> Tensor:
    """Norm and rotary embedding of each head of (rows, heads, head_dim), computed in float32."""
    a, b = normed(heads.float(), weights, epsilon).chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(heads.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SwiGLU of two projections, computed in float32."""
    return (F.silu(gate.float()) * up.float()).to(gate.dtype)


def merged(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """The attention to two sets of keys, from the attention to each of them.

    Args:
        out: Attention to one set, (rows, heads, head_dim).
        lse: Logarithm of the sum of its exponentiated scores, (heads, rows) float32.
        other: As out, for the other set.
        other_lse: As lse, for the other set.
    """
    share = torch.sigmoid(lse - other_lse).T[..., None]
    mixed = torch.lerp(other.float(), out.float(), share)
    return mixed.to(out.dtype), torch.logaddexp(lse, other_lse)


class Functions(NamedTuple):
    """The functions between the products, compiled or not."""

    summed: Callable[..., tuple[Tensor, Tensor]] = summed
    rotated: Callable[..., Tensor] = rotated
    swiglu: Callable[..., Tensor] = swiglu
    merged: Callable[..., tuple[Tensor, Tensor]] = merged


class Shape(NamedTuple):
    """Sizes that a compiled function is specialised for."""

    hidden: int
    intermediate: int
    heads: int
    """Key heads."""
    group: int
    """Query heads to a key head."""
    size: int
    """Of a head."""


@lru_cache
def compiled(device: torch.device, dtype: torch.dtype, shape: Shape, epsilon: float) -> Functions:
    """The functions fused by `torch.compile`, or as they are if that fails; tried once.

    They are compiled for any number of rows, and compared with what they are compiled from.
    """
    try:
        # By default torch starts helper processes that compile; here they would have little to do.
        options: dict[str, Any] = {"compile_threads": 1}
        fused: Any = [torch.compile(f, fullgraph=True, options=options) for f in Functions()]
        functions = Functions(*fused)
        samples = _samples(device, dtype, shape, epsilon)
        for function, exact, sample in zip(functions, Functions(), samples, strict=True):
            with torch.inference_mode():
                torch.testing.assert_close(function(*sample), exact(*sample), atol=0.02, rtol=0.02)
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways, and are not needed
        logger.warning(
            "torch.compile of torch %s is unusable on %s (%s); norms, rotation and SwiGLU are not "
            "fused, which is slower",
            torch.__version__,
            device,
            _first_line(error),
        )
        return Functions()
    return functions


def _first_line(error: BaseException) -> str:
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def _samples(
    device: torch.device, dtype: torch.dtype, shape: Shape, epsilon: float
) -> list[tuple[Any, ...]]:
    """Arguments of each of `Functions`, laid out as in a forward pass; their rows are dynamic."""
    random = torch.Generator().manual_seed(0)

    @torch.inference_mode()
    def rows(*sizes: int, of: torch.dtype = dtype, dim: int = 0) -> Tensor:
        x = torch.randn(sizes, generator=random).to(device, of)
        torch._dynamo.mark_dynamic(x, dim)  # noqa: SLF001 - documented under this name
        return x

    n, exact, half = TRIAL_ROWS, torch.float32, shape.size // 2
    queries = shape.heads * shape.group
    made = rows(n, queries + 2 * shape.heads, shape.size)[:, : -shape.heads]
    torch._dynamo.mark_dynamic(made, 0)  # noqa: SLF001
    weight = torch.rand(shape.hidden, generator=random).to(device)
    weights = torch.rand(queries + shape.heads, shape.size, generator=random).to(device)
    return [
        (rows(n, shape.hidden, of=exact), rows(n, shape.hidden), weight, epsilon, dtype),
        (made, weights, rows(n, 1, half, of=exact), rows(n, 1, half, of=exact), epsilon),
        (rows(n, shape.intermediate), rows(n, shape.intermediate)),
        (
            rows(n, queries, shape.size),
            rows(queries, n, of=exact, dim=1),
            rows(n, queries, shape.size),
            rows(queries, n, of=exact, dim=1),
        ),
    ]


class Call(NamedTuple):
    """The sequences of one call of `varlen_attn`: queries of a pack, and the keys that they see."""

    rows: tuple[slice, ...]
    """Rows of the queries, one slice after the other."""
    query_ends: Any
    """Where each sequence's queries end, after a 0; a list, or an int32 tensor on the device."""
    key_ends: Any
    """Where each sequence's keys end."""
    longest: tuple[int, int]
    """The largest number of queries and of keys of a sequence, or more."""


def _call(sequences: Sequence[tuple[slice, int]], used: int = 0, count: int = 0) -> Call | None:
    """A call for query rows and numbers of keys; None if there are none.

    If the sequences end at row `used`, the last one also gets the padding, up to row `count`.
    """
    if not sequences:
        return None
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
    # For a longest of 1, flash attention may take another path, which wants exactly one query of
    # each sequence.
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
    own_call = _call(own)
    assert own_call is not None, "a pack has a segment"
    return Calls(own_call, _call(new, row, count), _call(cached, row, count))


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
    merge: Callable[..., tuple[Tensor, Tensor]] = merged,
) -> Tensor:
    """The attention of a pack's layer: to own keys, then merged with that to prefixes.

    Args:
        calls: The pack's calls, with tensors.
        query: (n, query heads, head_dim), rotated and scaled by 1 / sqrt(head_dim).
        keys: (T, kv_heads, head_dim), rotated.
        values: (T, kv_heads, head_dim).
        new: Rows of the keys of each prefix in `calls.new`.
        cached: Keys and values of each prefix in `calls.cached`.
        merge: `merged`, possibly compiled.

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
        their_keys, their_values = (_together(x) for x in zip(*pieces, strict=True))
        asked = _together([query[rows] for rows in call.rows])
        other, other_lse = flash(asked, their_keys, their_values, call, causal=False)
        if call.rows == (slice(0, len(query)),):
            out, lse = merge(out, lse, other, other_lse)
            continue
        begin = 0
        for rows in call.rows:
            part = slice(begin, begin := begin + rows.stop - rows.start)
            # Not compiled: a slice may have a single row.
            out[rows], lse[:, rows] = merged(
                out[rows], lse[:, rows], other[part], other_lse[:, part]
            )
    return out


def _together(pieces: Sequence[Tensor]) -> Tensor:
    """The rows of one tensor after the other; copied only if there are several."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


@lru_cache
def flash_agrees(
    device: torch.device, dtype: torch.dtype, heads: int, group: int, size: int
) -> bool:
    """Whether `varlen_attn` exists and `attend` agrees with block attention; tried once."""
    random = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    known = {(1, 2, 3, 4): 4, (5, 6, 7): 2}
    sequences = [
        *(TokenSequence(prefix, (8, 9)) for prefix in (*known, (8, 9, 9))),
        TokenSequence((), (1, 2, 3)),
        TokenSequence((5, 6, 7), (8,)),
    ]
    pack = next_pack([([Work(sequences)], 100)], lambda prefix: known.get(prefix, 0))
    total, branches = len(pack.ids), pack.branches
    count = total + 3  # with padding
    cached = [(tensor(heads, n, size), tensor(heads, n, size)) for n in known.values()]
    query, keys, values = (tensor(count, n * heads, size) for n in (group, 1, 1))
    all_keys, all_values = (
        torch.cat((x[:total].transpose(0, 1), *more), 1)
        for x, more in zip((keys, values), zip(*cached, strict=True), strict=True)
    )
    cached_rows: dict[Ids, slice] = {}
    stop = total
    for prefix, tokens in known.items():
        cached_rows[prefix] = slice(stop, stop := stop + tokens)
    segments, new = segments_of(pack, cached_rows), [b.prefix_rows for b in branches]
    new = [rows for rows in new if rows.stop > rows.start]
    for last in (False, True):
        asked = query[: len(pack.members) + 3] if last else query
        some = len(asked) - 3
        expected = torch.empty(some, heads, group, size, device=device, dtype=dtype)
        BlockAttention(last_tokens_of(segments) if last else segments)(
            asked[:some].view(some, heads, group, size).transpose(0, 1),
            all_keys,
            all_values,
            expected,
            Buffers(device),
        )
        try:
            (calls,), _ = sent(device, [calls_of(pack, len(asked), last=last)])
            found = attend(calls, asked, keys, values, new, cached)[:some]
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            reason = f"it fails with {_first_line(error)}"
            break
        distance = (found - expected.flatten(1, 2)).abs().max().item()
        if not distance < 0.05:  # of values around 1; a key too many or too few makes 0.5 and more
            reason = f"it is wrong by {distance:.2g}"
            break
    else:
        return True
    logger.warning(
        "varlen_attn of torch %s is unusable on %s in %s (%s); falling back to block attention",
        torch.__version__,
        device,
        dtype,
        reason,
    )
    return False


def usable(model: Any) -> bool:
    """Whether `FlashForward` runs a model: on CUDA, in a dtype and with a kernel that agree."""
    device, dtype, shape = model.embed_tokens.weight.device, model.dtype, shape_of(model.config)
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return flash_agrees(device, dtype, *shape[2:])


def shape_of(config: Any) -> Shape:
    """The sizes of a Qwen3 model."""
    heads = config.num_key_value_heads or config.num_attention_heads
    group = config.num_attention_heads // heads
    return Shape(config.hidden_size, config.intermediate_size, heads, group, config.head_dim)


class FlashForward:
    """A Qwen3 model's forward pass over packs, in few kernels."""

    def __init__(self, model: Any, block_rows: int) -> None:
        """Wrap a model whose query, key and value projections are merged.

        Args:
            model: The base model, on its device.
            block_rows: Rows of the MLP computed at a time, to bound the memory of a sequence that
                is longer than a pack.
        """
        self._model = model
        self._block_rows = block_rows
        self._shape = shape = shape_of(model.config)
        self._device = model.embed_tokens.weight.device
        self._epsilon = float(model.norm.variance_epsilon)
        self._norms = [
            (layer.input_layernorm.weight.float(), layer.post_attention_layernorm.weight.float())
            for layer in model.layers
        ]
        self._final_norm = model.norm.weight.float()
        self._head_norms = [head_norms(layer.self_attn, shape) for layer in model.layers]

    def __call__(
        self, pack: Pack[Any], cached: Mapping[Ids, list[KeysValues]]
    ) -> tuple[Tensor, dict[Ids, list[KeysValues]]]:
        """The pack's last hidden states, on the CPU, and the new keys and values of its prefixes.

        The first call compiles; see `compiled`.
        """
        model, shape, dtype, epsilon = self._model, self._shape, self._model.dtype, self._epsilon
        functions = compiled(self._device, dtype, shape, epsilon)
        numbers = [_padded(pack.ids), _padded(pack.positions), _padded(pack.last_rows)]
        both = [calls_of(pack, len(numbers[0])), calls_of(pack, len(numbers[2]), last=True)]
        (calls, last_calls), (ids, positions, last_rows) = sent(self._device, both, *numbers)
        new_rows = {b.prefix: b.prefix_rows for b in pack.branches if b.cached < len(b.prefix)}
        known = [cached[branch.prefix] for branch in pack.branches if branch.cached]
        captured: dict[Ids, list[KeysValues]] = {prefix: [] for prefix in new_rows}

        x = model.embed_tokens(ids).float()
        angles = model.rotary_emb(x[None], positions[None])
        cos, sin = (t[0, :, None, : shape.size // 2].contiguous() for t in angles)
        normed_x = normed(x, self._norms[0][0], epsilon).to(dtype)
        following = [*(norm for norm, _ in self._norms[1:]), self._final_norm]
        for index, layer in enumerate(model.layers):
            made = projected(layer.self_attn, normed_x).view(len(x), -1, shape.size)
            turned = functions.rotated(
                made[:, : -shape.heads], self._head_norms[index], cos, sin, epsilon
            )
            query, keys = turned[:, : -shape.heads], turned[:, -shape.heads :]
            values = made[:, -shape.heads :]
            for prefix, rows in new_rows.items():
                kept = keys[rows].clone(), values[rows].clone()
                captured[prefix].append((kept[0].transpose(0, 1), kept[1].transpose(0, 1)))
            if layer is model.layers[-1]:
                query, x, calls = query[last_rows], x[last_rows], last_calls
            pieces = [layers[index] for layers in known]
            out = attend(
                calls, query, keys, values, list(new_rows.values()), pieces, functions.merged
            )
            x, normed_x = functions.summed(
                x, layer.self_attn.o_proj(out.flatten(1)), self._norms[index][1], epsilon, dtype
            )
            blocks = torch.split(normed_x, self._block_rows)
            more = _together([self._mlp(layer.mlp, block, functions) for block in blocks])
            x, normed_x = functions.summed(x, more, following[index], epsilon, dtype)
        states = normed(x[: len(pack.last_rows)], self._final_norm, epsilon)
        return to_host(states), captured

    def _mlp(self, mlp: Any, x: Tensor, functions: Functions) -> Tensor:
        inner = functions.swiglu(mlp.gate_proj(x), mlp.up_proj(x))
        down: Tensor = mlp.down_proj(inner)
        return down


def head_norms(attention: Any, shape: Shape) -> Tensor:
    """Norm weights of all query heads, times the softmax scale, and of all key heads: float32."""
    query = attention.q_norm.weight.float() * attention.scaling
    key = attention.k_norm.weight.float()
    heads = shape.heads
    return torch.cat((query.expand(heads * shape.group, -1), key.expand(heads, -1)))


def _padded(numbers: list[int]) -> list[int]:
    """Numbers of rows, with zeros up to a multiple of `ROWS_STEP`."""
    return numbers + [0] * (-len(numbers) % ROWS_STEP)
