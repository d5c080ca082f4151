"""A layer computes what transformers' layer does, whatever the blocks, and rounds where it says."""

from copy import deepcopy

import pytest
import torch
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RotaryEmbedding

from qwen3_core.model import cpu_kernels, layers
from qwen3_core.model.attention import BlockAttention, Segment
from qwen3_core.model.buffers import Buffers
from qwen3_core.model.layers import Layer, rms_norm
from qwen3_core.model.linear import MERGED, prepack
from tests.core.test_int8 import needs_int8

# A result that does not fit its buffer is a warning of torch's, and no such buffer is right.
pytestmark = pytest.mark.filterwarnings("error:An output with one or more elements was resized")

CPU = torch.device("cpu")
COUNT = 7
CONFIG = Qwen3Config(
    hidden_size=20,
    intermediate_size=28,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=12,  # 1 / sqrt(12) is no power of 2, so that rounding it would show
    rms_norm_eps=0.1,  # large enough to matter
)
CONFIG._attn_implementation = "eager"


@pytest.fixture(params=[False, True], ids=["plain", "bias"])
def module(request):
    torch.manual_seed(0)
    config = deepcopy(CONFIG)
    config.attention_bias = request.param
    module = Qwen3DecoderLayer(config, 0).eval().requires_grad_(False)
    for weight in module.parameters():
        weight.uniform_(-0.5, 0.5) if weight.dim() == 2 else weight.uniform_(0.5, 1.5)
    return module


@pytest.fixture(params=[3, 7, 100])
def block_rows(request, monkeypatch):
    monkeypatch.setattr(layers, "BLOCK_ROWS", request.param)
    monkeypatch.setattr(layers, "CACHED_ROWS", 2)


@pytest.fixture
def x():
    return torch.randn(COUNT, CONFIG.hidden_size, generator=torch.Generator().manual_seed(1))


def turns(x):
    """The rotary embedding's cosines and sines, for both halves of a head."""
    return Qwen3RotaryEmbedding(CONFIG)(x[None], torch.arange(3, 3 + len(x))[None])


def halves(x):
    return (t[0, :, None, : t.shape[-1] // 2] for t in turns(x))


def expected(module, x):
    mask = torch.full((COUNT, COUNT), -torch.inf).triu(1)[None, None]
    return module(x[None], attention_mask=mask, position_embeddings=turns(x))[0]


@pytest.fixture(params=[False, True], ids=["torch", "numba"])
def layer_type(request):
    if not request.param:
        return Layer
    pytest.importorskip("numba", reason="the extra 'numba' is not installed")
    found = cpu_kernels.compiled_for(CPU, torch.float32)
    assert found is not None
    return found.CompiledLayer


def layer_of(module, layer_type):
    if layer_type is not Layer and not hasattr(module.self_attn, MERGED):
        module = deepcopy(module)
        prepack(module)
    return layer_type(module, module.input_layernorm.weight.dtype, Buffers(CPU))


def ours(module, x, layer_type):
    layer = layer_of(module, layer_type)
    cos, sin = halves(x)
    query, keys, values = layer.project(x, cos, sin, COUNT)
    every = slice(0, COUNT)
    out = x.clone()
    layer.finish(out, query, keys, values, BlockAttention([Segment(every, every)]))
    return out


def test_a_layer_computes_what_transformers_does(module, x, block_rows, layer_type):
    torch.testing.assert_close(
        ours(module, x, layer_type), expected(module, x), atol=1e-5, rtol=1e-5
    )


def test_a_layer_in_bfloat16_is_close(module, x, block_rows, layer_type):
    exact = expected(module, x)
    found = ours(module.bfloat16(), x, layer_type)
    assert found.dtype == torch.float32, "what layers add to is not rounded between them"
    torch.testing.assert_close(found, exact, atol=0.1, rtol=0.05)


@needs_int8
def test_a_layer_in_integers_is_close(module, x, block_rows, layer_type):
    exact = expected(module, x)
    prepack(module, int8=True)
    assert (ours(module, x, layer_type) - exact).norm() < 0.03 * (exact - x).norm()


@pytest.mark.parametrize("more", [0, 3])
def test_keys_and_values_have_room_behind_them(module, x, block_rows, layer_type, more):
    layer = layer_of(module, layer_type)
    cos, sin = halves(x)
    shape = (CONFIG.num_key_value_heads, COUNT + more, CONFIG.head_dim)
    _, *found = layer.project(x, cos, sin, COUNT + more)
    assert [t.shape for t in found] == [shape, shape]
    _, *every = layer_of(module, layer_type).project(x, cos, sin, COUNT)
    for theirs, mine in zip(every, found, strict=True):
        torch.testing.assert_close(mine[:, :COUNT], theirs)


def rotated(heads, cos, sin):
    a, b = heads.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def normed(x, weight):
    return x * (x.square().mean(-1, keepdim=True) + CONFIG.rms_norm_eps).rsqrt() * weight.float()


def test_bfloat16_is_rounded_after_norms_and_after_rotation_alone(module, x, layer_type):
    """Between the products all is float32, so that each result is rounded once."""
    module = module.bfloat16()
    attention, size = module.self_attn, CONFIG.head_dim
    layer = layer_of(module, layer_type)
    cos, sin = halves(x)
    read = normed(x, module.input_layernorm.weight).bfloat16()
    query, keys, _ = layer.project(x, cos, sin, COUNT)
    key = attention.k_proj(read).float().view(COUNT, -1, size)
    asking = attention.q_proj(read).float().view(COUNT, -1, size)
    key = rotated(normed(key, attention.k_norm.weight), cos, sin)
    asking = rotated(normed(asking, attention.q_norm.weight) * size**-0.5, cos, sin)
    for found, exact in (
        (keys.transpose(0, 1), key),
        (query.transpose(0, 1), asking.view(COUNT, CONFIG.num_key_value_heads, -1, size)),
    ):
        assert found.dtype == torch.bfloat16
        # The order of sums in float32 may let a value in a hundred fall to the other side.
        assert (found == exact.bfloat16()).float().mean() > 0.99


def test_the_norm_of_rows():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    weight = torch.tensor([1.0, 2.0])
    expected = torch.tensor([[3.0, 8.0], [0.0, 0.0]]) / (12.5 + 0.5) ** 0.5
    torch.testing.assert_close(rms_norm(x, weight, 0.5), expected)
    assert x[0, 0] == 3, "without `out` x stays as it is"
    assert rms_norm(x, weight, 0.5, x) is x
    torch.testing.assert_close(x, expected)
