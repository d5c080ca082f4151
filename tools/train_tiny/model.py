"""A minimal Qwen3 for fast CPU training; state dicts move to and from transformers unchanged.

Two things make it faster than the transformers module for this purpose: sequences are padded on the
right under causal attention, so no mask is built, and the last layer computes queries, output
projection and feed-forward for the last real token only (both models read nothing else). A prefix
that all sequences share is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROPE_THETA = 1e6
EPS = 1e-6
MAX_POSITIONS = 2048

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; field names follow ``Qwen3Config``."""

    vocab_size: int
    num_hidden_layers: int
    hidden_size: int = 256
    intermediate_size: int = 512
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 64


class RMSNorm(nn.Module):
    """Root mean square normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), EPS)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys and rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden, width = shape.hidden_size, shape.head_dim
        self.heads, self.groups, self.width = (
            shape.num_attention_heads,
            shape.num_key_value_heads,
            width,
        )
        self.q_proj = nn.Linear(hidden, self.heads * width, bias=False)
        self.k_proj = nn.Linear(hidden, self.groups * width, bias=False)
        self.v_proj = nn.Linear(hidden, self.groups * width, bias=False)
        self.o_proj = nn.Linear(self.heads * width, hidden, bias=False)
        self.q_norm, self.k_norm = RMSNorm(width), RMSNorm(width)

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        last: Tensor | None = None,
        prefix: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Attend over ``x`` (batch, length, hidden) after an optional shared prefix.

        ``last`` (batch,) restricts the queries to one position per row.
        """
        rows, length, _ = x.shape
        cos, sin = (part[:, None] for part in rope)
        key = _rotate(self.k_norm(self.k_proj(x).view(rows, length, self.groups, -1)), cos, sin)
        key = key.transpose(1, 2)
        value = self.v_proj(x).view(rows, length, self.groups, -1).transpose(1, 2)
        own = (key, value)
        if last is not None:
            x = x[torch.arange(rows), last].unsqueeze(1)
            cos, sin = cos[last].unsqueeze(1), sin[last].unsqueeze(1)
        query = self.q_norm(self.q_proj(x).view(rows, x.shape[1], self.heads, -1))
        query = _rotate(query, cos, sin).transpose(1, 2)
        before = 0
        if prefix is not None:
            before = prefix[0].shape[2]
            key = torch.cat((prefix[0].expand(rows, -1, -1, -1), key), 2)
            value = torch.cat((prefix[1].expand(rows, -1, -1, -1), value), 2)
        share = self.heads // self.groups
        key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
        mask = None
        if last is not None:
            mask = torch.arange(before + length)[None] <= (last + before)[:, None]
            mask = mask[:, None, None]
        elif before:
            mask = torch.ones(length, before + length, dtype=torch.bool).tril(before)
        out = F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
        return self.o_proj(out.transpose(1, 2).flatten(2)), own


class MLP(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to the last dimension."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(shape), MLP(shape)
        self.input_layernorm = RMSNorm(shape.hidden_size)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size)

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        last: Tensor | None = None,
        prefix: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """As ``Attention.forward``, with residuals and feed-forward."""
        out, own = self.self_attn(self.input_layernorm(x), rope, last, prefix)
        if last is not None:
            # float32 from here: what tells two sequences apart is small beside what they share
            x = x[torch.arange(x.shape[0]), last].unsqueeze(1).float()
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), own


class TinyQwen3(nn.Module):
    """The decoder without a head; parameter names are those of transformers' ``Qwen3Model``."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size)
        half = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        angle = torch.outer(torch.arange(MAX_POSITIONS).float(), ROPE_THETA**-half).repeat(1, 2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def layer(self, index: int) -> Layer:
        """A decoder layer."""
        layer = self.layers[index]
        assert isinstance(layer, Layer)
        return layer

    def _rope(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        cos, sin = self.get_buffer("cos"), self.get_buffer("sin")
        rows = slice(start, start + length)
        return cos[rows].to(self.dtype), sin[rows].to(self.dtype)

    def prefix(self, ids: Sequence[int]) -> list[KeyValue]:
        """Keys and values of a shared prefix, one pair per layer; gradients flow through it."""
        x = self.embed_tokens(torch.tensor([list(ids)])).to(self.dtype)
        rope, out = self._rope(0, len(ids)), []
        for layer in self.layers:
            x, own = layer(x, rope)
            out.append(own)
        return out

    def forward(self, ids: Tensor, lengths: Tensor, prefix: list[KeyValue] | None = None) -> Tensor:
        """Hidden state of each row's last real token.

        Args:
            ids: int64 (batch, length), padded on the right.
            lengths: int64 (batch,), real tokens of each row.
            prefix: From ``prefix``; precedes every row.

        Returns:
            float32 (batch, hidden), after the final norm.
        """
        x = self.embed_tokens(ids).to(self.dtype)
        rope = self._rope(prefix[0][0].shape[2] if prefix else 0, ids.shape[1])
        for i, layer in enumerate(self.layers):
            last = lengths - 1 if i == len(self.layers) - 1 else None
            x, _ = layer(x, rope, last, prefix[i] if prefix else None)
        out: Tensor = self.norm(x[:, 0].float())
        return out


def last_states(
    model: TinyQwen3,
    rows: Sequence[Sequence[int]],
    prefix_ids: Sequence[int] = (),
    budget: int = 3072,
) -> Tensor:
    """Last-token hidden states of many ragged sequences, in their order.

    Args:
        model: Runs under bfloat16 autocast when its dtype is bfloat16.
        rows: Token ids of each sequence, without the prefix.
        prefix_ids: Shared beginning.
        budget: Padded tokens per micro-batch; about 3,000 stay in the processor's cache.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    states = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.dtype == torch.bfloat16):
        prefix = model.prefix(prefix_ids) if prefix_ids else None
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(rows[order[end]]) <= budget:
                end += 1
            batch = [rows[i] for i in order[start:end]]
            lengths = torch.tensor([len(row) for row in batch])
            ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
            for i, row in enumerate(batch):
                ids[i, : len(row)] = torch.tensor(row)
            states.append(model(ids, lengths, prefix))
            start = end
    inverse = torch.empty(len(order), dtype=torch.long)
    inverse[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(states)[inverse]
