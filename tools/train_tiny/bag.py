"""A weighted bag of token embeddings: the fast first stage, and the one-layer Qwen3 equal to it.

A Qwen3 layer whose last token attends to all others by a score that each token carries, and reads
their embeddings unchanged, computes ``sum(w * v) / sum(w) + bias``. Trained in that form, a step
needs no matrix product per token and is many times faster.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .model import Shape, TinyQwen3

#: Dimensions of the hidden state: content first, then what a token carries about itself.
CONTENT = 252
IMPORTANCE, CONSTANT = 254, 255
CONTENT_NORM = 1.6
CONSTANT_SIZE = 0.5
#: Query norm of the pooling layer; scores reach at most ``8 * SHARPNESS``.
SHARPNESS = 1.5
#: Dimensions of a head that rotary positions (theta 1e6) leave unturned over 2,048 tokens.
STILL = (31, 30)


class Bag(nn.Module):
    """Token embeddings of length 1, a log weight per token, and a bias."""

    def __init__(self, tokens: Tensor, log_weight: Tensor) -> None:
        """Start from ``tokens`` (vocab_size, at least CONTENT) and ``log_weight`` (vocab_size,)."""
        super().__init__()
        self.table = nn.Parameter(F.normalize(tokens[:, :CONTENT], dim=1))
        self.log_weight = nn.Parameter(log_weight.clone())
        self.bias = nn.Parameter(torch.zeros(CONTENT))

    def bounded_log_weight(self) -> Tensor:
        """Log weights in the range that the pooling layer can express."""
        limit = 7.5 * SHARPNESS
        return limit * torch.tanh(self.log_weight / limit)

    def forward(self, rows: Sequence[Sequence[int]], prefix: Sequence[int] = ()) -> Tensor:
        """Embed ragged sequences after a shared prefix: float32 (rows, CONTENT)."""
        table, weight = F.normalize(self.table, dim=1), self.bounded_log_weight().exp()
        ids = torch.tensor(list(itertools.chain.from_iterable(rows)))
        lengths = torch.tensor([len(row) for row in rows])
        offsets = lengths.cumsum(0) - lengths
        own = weight[ids]
        total = F.embedding_bag(ids, table, offsets, mode="sum", per_sample_weights=own)
        row_of = torch.arange(len(rows)).repeat_interleave(lengths)
        norm = torch.zeros(len(rows)).index_add(0, row_of, own)
        if prefix:
            shared = torch.tensor(list(prefix))
            total = total + weight[shared] @ table[shared]
            norm = norm + weight[shared].sum()
        return total / norm[:, None].clamp_min(1e-6) + self.bias


@torch.no_grad()
def as_layer(bag: Bag, shape: Shape, end: int) -> TinyQwen3:
    """The one-layer model that computes the bag's output in its first CONTENT dimensions.

    Args:
        bag: Trained weights.
        shape: One layer, hidden 256.
        end: Id of the last token: its content is the bias, its weight next to nothing.
    """
    model = TinyQwen3(shape)
    table = model.embed_tokens.weight
    table.zero_()
    table[:, :CONTENT] = CONTENT_NORM * F.normalize(bag.table, dim=1)
    table[:, CONSTANT] = CONSTANT_SIZE
    sine = bag.bounded_log_weight() / (8 * SHARPNESS)
    sine[end] = -7.5 / 8
    table[:, IMPORTANCE] = CONSTANT_SIZE * sine / (1 - sine**2).sqrt()
    layer = model.layer(0)
    attention = layer.self_attn
    width, share = attention.width, attention.heads // attention.groups
    for weight in attention.parameters():
        if weight.dim() == 2:
            weight.zero_()
    attention.q_norm.weight.fill_(SHARPNESS)
    attention.v_proj.weight[:CONTENT, :CONTENT] = torch.eye(CONTENT)
    length = (CONTENT_NORM**2 + CONSTANT_SIZE**2) ** 0.5
    scale = length / (16 * CONTENT_NORM)
    identity = torch.eye(shape.hidden_size)
    for head in range(attention.heads):
        group, start = head // share, head * width
        attention.q_proj.weight[start + STILL[0], CONSTANT] = 1
        attention.o_proj.weight[:, start : start + width] = (
            identity[:, group * width : (group + 1) * width] * scale / share
        )
    for group in range(attention.groups):
        attention.k_proj.weight[group * width + STILL[0], IMPORTANCE] = 1
        attention.k_proj.weight[group * width + STILL[1], CONSTANT] = 1
    layer.mlp.down_proj.weight.zero_()
    table[end, :CONTENT] = bag.bias
    # what the last token carries about itself leaves by way of a value that is 1 for every token
    attention.v_proj.weight[CONTENT, CONSTANT] = length / (16 * CONSTANT_SIZE)
    columns = slice((attention.heads - share) * width + CONTENT % width, None, width)
    attention.o_proj.weight[:, columns] = 0
    for dimension in (IMPORTANCE, CONSTANT):
        attention.o_proj.weight[dimension, columns] = -table[end, dimension] / share
    return model
