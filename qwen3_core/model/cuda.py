"""The forward pass on CUDA devices with flash attention: few kernels, each over a whole pack.

Launching a kernel takes several microseconds of Python and driver time, as long as a small kernel
runs. `qwen3_core.model.layers` launches about fifty for each layer of a query, and more for each
text. This pass launches ten for each layer of a pack, and up to some thirty if it has prefixes:

- Attention takes one call of torch's `varlen_attn`, and with prefixes two that are merged
  (`qwen3_core.model.cascade`).
- `torch.compile` fuses the residual addition with the next norm, the norms and rotary embeddings of
  all heads, and SwiGLU.
- All integers of a pack (token ids, positions, lengths) go to the device in one transfer from
  pinned memory.

`varlen_attn` and the compiled functions are compared with reference implementations before their
first use. All of this runs on any device, except for `varlen_attn` itself.
"""

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_core.model.attention import head_norms
from qwen3_core.model.cascade import (
    KeysValues,
    attend,
    calls_of,
    first_line,
    flash_agrees,
    merged,
    sent,
    together,
)
from qwen3_core.model.linear import projected
from qwen3_core.model.packing import Pack
from qwen3_core.tokenizer import Ids

logger = logging.getLogger(__name__)

ROWS_STEP = 16
"""Row counts are padded to a multiple of this: tensor cores multiply tiles of 16 rows, and a
compiled function is never called with a single row, for which torch would compile it again."""

LEAST_PACK_TOKENS, MOST_PACK_TOKENS = 1024, 8192
"""Smallest and largest default token budget of a pack. More than 8,192 tokens do not make matrix
products more efficient, but make a query wait longer for the running pack."""

MEMORY_SHARE = 4
"""A pack may use 1/MEMORY_SHARE of the free memory, leaving room for a second model."""

TRIAL_ROWS = 2048
"""Rows of the tensors that functions are compiled with; only a size hint: the compiled functions
accept any row count."""


def token_bytes(config: Any, dtype: torch.dtype) -> int:
    """Memory of a forward pass per token of a pack, in bytes; a slight overestimate.

    With H the hidden size, Q and K the widths of all query heads and of all key heads, I the
    intermediate size, L the number of layers, and b bytes for each number of the dtype:

    - the residual stream in float32, before and after an addition: 8 H
    - a linear layer's input and output in the hidden size: 2 b H
    - queries, keys and values, and the rotated queries and keys: b (Q + 2 K) + b (Q + K)
    - attention to own keys, to a prefix, and both merged: 3 b Q
    - gate, up and their product: 3 b I
    - keys and values of all layers, if the token is a prefix's: 2 b K L

    Qwen3-0.6B in bfloat16 (H 1024, Q 2048, K 1024, I 3072, L 28): 172,032 bytes.
    """
    b, shape, layers = dtype.itemsize, shape_of(config), int(config.num_hidden_layers)
    keys = shape.num_kv_heads * shape.head_dim
    queries = keys * shape.num_kv_groups
    tensors = 5 * queries + 3 * keys + 3 * shape.intermediate + 2 * keys * layers
    return (8 + 2 * b) * shape.hidden + b * tensors


def pack_tokens(free: int, config: Any, dtype: torch.dtype) -> int:
    """The default token budget of a pack on a device with `free` bytes available.

    A quarter of the free memory over `token_bytes`, rounded down to a multiple of 1,024, from 1,024
    to 8,192. A pack that still runs out of memory is split (`qwen3_core.engine.worker`). Qwen3-0.6B
    in bfloat16 gets 8,192 with 20 GiB free (31,207 would fit), and 3,072 with 2 GiB (of 3,120).
    """
    tokens = free // MEMORY_SHARE // token_bytes(config, dtype)
    return max(LEAST_PACK_TOKENS, min(tokens - tokens % 1024, MOST_PACK_TOKENS))


def available_memory(device: torch.device) -> int:
    """Free CUDA memory in bytes, including blocks cached by torch's allocator."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def to_host(x: Tensor) -> Tensor:
    """Copy a tensor to the CPU through pinned memory; waits for the device."""
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
    """The residual stream after an addition, (rows, hidden) float32, and its norm in `dtype`."""
    x = x + more
    return x, normed(x, weight, epsilon).to(dtype)


def rotated(heads: Tensor, weights: Tensor, cos: Tensor, sin: Tensor, epsilon: float) -> Tensor:
    """Norm and rotary embedding of each head of (rows, heads, head_dim), computed in float32."""
    a, b = normed(heads.float(), weights, epsilon).chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(heads.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SwiGLU of two projections, computed in float32."""
    return (F.silu(gate.float()) * up.float()).to(gate.dtype)


class Functions(NamedTuple):
    """The functions between the matrix products, compiled or not."""

    summed: Callable[..., tuple[Tensor, Tensor]] = summed
    rotated: Callable[..., Tensor] = rotated
    swiglu: Callable[..., Tensor] = swiglu
    merged: Callable[..., tuple[Tensor, Tensor]] = merged


class Shape(NamedTuple):
    """Sizes that a compiled function is specialised for."""

    hidden: int
    intermediate: int
    num_kv_heads: int
    num_kv_groups: int
    """Query heads per key head."""
    head_dim: int


@lru_cache
def compiled(device: torch.device, dtype: torch.dtype, shape: Shape, epsilon: float) -> Functions:
    """The functions fused by `torch.compile`, or as they are if that fails; tried once.

    They are compiled for any number of rows, and compared with the uncompiled functions.
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
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways; compiling is optional
        logger.warning(
            "torch.compile of torch %s is unusable on %s (%s); norms, rotary embeddings and SwiGLU "
            "are not fused, which is slower",
            torch.__version__,
            device,
            first_line(error),
        )
        return Functions()
    return functions


def _samples(
    device: torch.device, dtype: torch.dtype, shape: Shape, epsilon: float
) -> list[tuple[Any, ...]]:
    """Arguments of each of `Functions`, strided as in a forward pass; row counts are dynamic."""
    random = torch.Generator().manual_seed(0)

    def rows(*sizes: int, of: torch.dtype = dtype, dim: int = 0) -> Tensor:
        with torch.inference_mode():
            x = torch.randn(sizes, generator=random).to(device, of)
        torch._dynamo.mark_dynamic(x, dim)  # noqa: SLF001 - documented under this name
        return x

    @torch.inference_mode(mode=False)  # compiled functions distinguish inference tensors
    def weights(*sizes: int) -> Tensor:
        return torch.rand(sizes, generator=random).to(device)

    n, exact, size = TRIAL_ROWS, torch.float32, shape.head_dim
    kv_heads, half = shape.num_kv_heads, size // 2
    queries = kv_heads * shape.num_kv_groups
    query_keys = rows(n, queries + 2 * kv_heads, size)[:, :-kv_heads]
    torch._dynamo.mark_dynamic(query_keys, 0)  # noqa: SLF001
    weight, head_weights = weights(shape.hidden), weights(queries + kv_heads, size)
    return [
        (rows(n, shape.hidden, of=exact), rows(n, shape.hidden), weight, epsilon, dtype),
        (query_keys, head_weights, *(rows(n, 1, half, of=exact) for _ in range(2)), epsilon),
        (rows(n, shape.intermediate), rows(n, shape.intermediate)),
        (
            rows(n, queries, size),
            rows(queries, n, of=exact, dim=1),
            rows(n, queries, size),
            rows(queries, n, of=exact, dim=1),
        ),
    ]


def usable(model: Any) -> bool:
    """Whether `FlashForward` can run the model.

    It needs CUDA, bfloat16 or float16, and a `varlen_attn` that passes the self-test.
    """
    device, dtype, shape = model.embed_tokens.weight.device, model.dtype, shape_of(model.config)
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return flash_agrees(device, dtype, *shape[2:])


def shape_of(config: Any) -> Shape:
    """The sizes of a Qwen3 model."""
    kv_heads = config.num_key_value_heads or config.num_attention_heads
    groups = config.num_attention_heads // kv_heads
    return Shape(config.hidden_size, config.intermediate_size, kv_heads, groups, config.head_dim)


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
        self._shape = shape_of(model.config)
        self._device = model.embed_tokens.weight.device
        self._epsilon = float(model.norm.variance_epsilon)
        self._norms = [
            (_exact(layer.input_layernorm), _exact(layer.post_attention_layernorm))
            for layer in model.layers
        ]
        self._final_norm = _exact(model.norm)
        self._head_norms = [head_norms(layer.self_attn) for layer in model.layers]

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
        cos, sin = (t[0, :, None, : shape.head_dim // 2].contiguous() for t in angles)
        kv_heads = shape.num_kv_heads
        normed_x = normed(x, self._norms[0][0], epsilon).to(dtype)
        following = [*(norm for norm, _ in self._norms[1:]), self._final_norm]
        for index, layer in enumerate(model.layers):
            qkv = projected(layer.self_attn, normed_x).view(len(x), -1, shape.head_dim)
            query_keys = functions.rotated(
                qkv[:, :-kv_heads], self._head_norms[index], cos, sin, epsilon
            )
            query, keys = query_keys[:, :-kv_heads], query_keys[:, -kv_heads:]
            values = qkv[:, -kv_heads:]
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
            more = together([self._mlp(layer.mlp, block, functions) for block in blocks])
            x, normed_x = functions.summed(x, more, following[index], epsilon, dtype)
        states = normed(x[: len(pack.last_rows)], self._final_norm, epsilon)
        return to_host(states), captured

    def _mlp(self, mlp: Any, x: Tensor, functions: Functions) -> Tensor:
        inner = functions.swiglu(mlp.gate_proj(x), mlp.up_proj(x))
        down: Tensor = mlp.down_proj(inner)
        return down


def _exact(norm: Any) -> Tensor:
    """A norm's weight in float32, as a plain tensor, which is what functions are compiled for."""
    weight: Tensor = norm.weight.detach().float()
    return weight


def _padded(numbers: list[int]) -> list[int]:
    """Numbers of rows, with zeros up to a multiple of `ROWS_STEP`."""
    return numbers + [0] * (-len(numbers) % ROWS_STEP)
