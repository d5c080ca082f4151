"""Attention behind a prefix, block by block, is the attention of the whole."""

import pytest
import torch

from qwen3_core import attention
from qwen3_core.attention import packed_attention
from qwen3_core.packing import TokenSequence, Work, next_pack


@pytest.mark.parametrize("block", [1, 3, 7, 100])
@pytest.mark.parametrize("known", [False, True])
def test_blocks_change_nothing(monkeypatch, block, known):
    generator = torch.Generator().manual_seed(0)
    prefix = (1, 2, 3, 4)
    sequences = [TokenSequence(prefix, tuple(range(n))) for n in (1, 6, 7, 20)]
    pack = next_pack([([Work(sequences)], 1000)], {prefix} if known else ())

    def random(heads: int, tokens: int) -> torch.Tensor:
        return torch.randn(1, heads, tokens, 8, generator=generator)

    count = len(pack.ids)
    query, keys, values = random(4, count), random(2, count), random(2, count)
    held = {prefix: (random(2, 4), random(2, 4))} if known else {}
    expected = packed_attention(query, keys, values, pack, held, 0.3)
    monkeypatch.setattr(attention, "BLOCK", block)
    found = packed_attention(query, keys, values, pack, held, 0.3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
