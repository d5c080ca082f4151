"""The pass for CUDA devices equals the one for all devices, in fewer and larger steps.

Without a CUDA device it runs on the CPU with a reference implementation of `varlen_attn`; with a
CUDA device, there too.
"""

import logging
import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Qwen3Config

from qwen3_core.model import cascade, cuda
from qwen3_core.model.attention import BlockAttention, last_tokens_of, segments_of
from qwen3_core.model.buffers import Buffers
from qwen3_core.model.encoder import Encoder
from qwen3_core.model.layers import rms_norm
from qwen3_core.model.packing import TokenSequence, Work, next_pack

CPU = torch.device("cpu")
HEADS, GROUP, SIZE = 2, 3, 8

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=needs_cuda)]


def varlen_attn(
    query, key, value, q_ends, k_ends, *longest, return_aux, scale, window_size, enable_gqa
):
    """What torch documents of its CUDA kernel, written out; the log-sum-exp is (heads, rows)."""
    assert enable_gqa
    assert window_size in ((-1, 0), (-1, -1))
    assert q_ends.dtype == k_ends.dtype == torch.int32
    assert longest[0] >= q_ends.diff().max() > 0
    assert longest[1] >= k_ends.diff().max()
    assert longest[0] > 1, "for which the kernel may take another path"
    assert k_ends.diff().min() > 0
    assert q_ends[-1] <= len(query)
    assert k_ends[-1] <= len(key) == len(value)
    out = torch.full_like(query, torch.nan)
    lse = torch.full((query.shape[1], len(query)), torch.nan)
    group = query.shape[1] // key.shape[1]
    for i in range(len(q_ends) - 1):
        rows, seen = (slice(*map(int, ends[i : i + 2])) for ends in (q_ends, k_ends))
        q = query[rows].transpose(0, 1).float()
        k, v = (x[seen].transpose(0, 1).float().repeat_interleave(group, 0) for x in (key, value))
        scores = q @ k.transpose(1, 2) * scale
        if window_size[1] == 0:
            visible = torch.ones(scores.shape[1:], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
            scores.masked_fill_(~visible, -torch.inf)
        out[rows] = (scores.softmax(-1) @ v).transpose(0, 1).to(out.dtype)
        lse[:, rows] = scores.logsumexp(-1)
    return (out, lse) if return_aux.lse else out


@pytest.fixture
def written_out(monkeypatch) -> Iterator[None]:
    """Where there is no CUDA device: `varlen_attn` written out, and nothing compiled."""
    caches = cascade.flash_agrees, cuda.compiled
    for cache in caches:
        cache.cache_clear()
    if not torch.cuda.is_available():
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
        monkeypatch.setattr(cuda, "compiled", lambda *_: cuda.Functions())
    yield
    for cache in caches:
        cache.cache_clear()


@st.composite
def packs(draw):
    """A pack with prefixes that are not cached, partly cached and cached."""
    prefixes = draw(
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4)
    )
    sequences, cached = [], {}
    for number, (length, known) in enumerate(prefixes):
        prefix = (number,) * length
        cached[prefix] = min(known, length)
        counts = draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))
        sequences += [TokenSequence(prefix, tuple(range(count))) for count in counts]
    return next_pack([([Work(sequences)], 1000)], cached.__getitem__)


@pytest.mark.parametrize("last", [False, True])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(pack=packs(), more=st.integers(0, 20), seed=st.integers(0, 2**16))
def test_cascade_attention_sees_what_blocks_see(written_out, last, pack, more, seed):
    torch.manual_seed(seed)
    total = len(pack.members) if last else len(pack.ids)
    query = torch.randn(total + more + 1, HEADS * GROUP, SIZE)[: total + more]
    keys, values = torch.randn(2, len(pack.ids) + more, HEADS, SIZE).unbind()
    known = [b for b in pack.branches if b.cached]
    cached = [
        (torch.randn(HEADS, b.cached, SIZE), torch.randn(HEADS, b.cached, SIZE)) for b in known
    ]
    stop, rows = len(keys), {}
    for branch in known:
        rows[branch.prefix] = slice(stop, stop := stop + branch.cached)
    segments = segments_of(pack, rows)
    expected = torch.empty(total, HEADS, GROUP, SIZE)
    BlockAttention(last_tokens_of(segments) if last else segments)(
        query[:total].view(total, HEADS, GROUP, SIZE).transpose(0, 1),
        torch.cat((keys.transpose(0, 1), *(k for k, _ in cached)), 1),
        torch.cat((values.transpose(0, 1), *(v for _, v in cached)), 1),
        expected,
        Buffers(CPU),
    )
    (calls,), _ = cascade.sent(CPU, [cascade.calls_of(pack, len(query), last=last)])
    new = [b.prefix_rows for b in pack.branches if b.cached < len(b.prefix)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
        found = cascade.attend(calls, query, keys, values, new, cached)
    torch.testing.assert_close(found[:total], expected.flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_cached_prefixes_of_a_whole_pack_are_one_piece():
    """So that nothing is copied, and the merging is compiled: queries, or candidates to rerank."""
    sequences = [TokenSequence(prefix, (1, 2)) for prefix in ((8,), (8, 9)) for _ in range(5)]
    pack = next_pack([([Work(sequences)], 100)], len)
    for last in (False, True):
        own, new, cached = cascade.calls_of(pack, 32, last=last)
        assert new is None
        assert cached is not None
        assert cached.rows == (slice(0, 32),)
        assert own.query_ends == (list(range(11)) if last else list(range(0, 21, 2)))
        assert own.key_ends == list(range(0, 21, 2))
        assert cached.key_ends == [0, 1, 3]


def test_the_last_layer_asks_with_last_tokens_only():
    pack = next_pack([([Work([TokenSequence((7, 7), (1, 2, 3)), TokenSequence((), (4,))])], 100)])
    own, new, cached = cascade.calls_of(pack, 16, last=True)
    assert (own.query_ends, own.key_ends) == ([0, 0, 1, 2], [0, 2, 5, 6])
    assert new is not None
    assert (new.rows, new.query_ends, new.key_ends) == ((slice(0, 1),), [0, 1], [0, 2])
    assert cached is None


SEQUENCES = [
    TokenSequence(prefix, tuple(range(5, 5 + n)))
    for prefix in ((), (1, 2, 3), (4,), tuple(range(40)), (*range(30), 50))
    for n in (1, 2, 130)
]


def states(model, pack_tokens: int) -> np.ndarray:
    """Last hidden states, computed twice: the second time with cached prefixes."""
    encoder = Encoder(model, pack_tokens=pack_tokens)
    found = []
    for _ in range(2):
        work = Work(SEQUENCES)
        rows: dict[int, np.ndarray] = {}
        while (pack := encoder.next_pack([([work], pack_tokens)])).members:
            made = encoder.run(pack)
            rows |= {i: row for (_, i), row in zip(pack.members, made, strict=True)}
        found.append(np.stack([rows[i] for i in range(len(SEQUENCES))]))
    return np.stack(found)


def model_of(random_checkpoints, device, dtype):
    from qwen3_core.model.loading import load

    folder = random_checkpoints["embedding"]
    return load(folder, "embedding", device=str(device), dtype=dtype).model


@pytest.mark.parametrize(("pack_tokens", "block_rows"), [(1, 8192), (150, 50), (2000, 8192)])
def test_a_model_computes_the_same(
    random_checkpoints, written_out, monkeypatch, pack_tokens, block_rows
):
    model = model_of(random_checkpoints, CPU, "float32")
    expected = states(model, pack_tokens)
    monkeypatch.setattr(cuda, "usable", lambda model: True)
    monkeypatch.setattr(cuda, "compiled", lambda *_: cuda.Functions())
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr("qwen3_core.model.encoder.DEFAULT_PACK_TOKENS", {"cpu": block_rows})
    np.testing.assert_allclose(states(model, pack_tokens), expected, atol=1e-5)


@pytest.mark.integration  # it compiles for a minute
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_functions_compile_once_for_all_packs(random_checkpoints, monkeypatch, caplog, backend):
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("no g++ here, which torch.compile needs for CPUs")
    compile_ = torch.compile
    torch._dynamo.reset()
    cuda.compiled.cache_clear()
    model = model_of(random_checkpoints, CPU, "float32")
    expected = states(model, 2000)
    monkeypatch.setattr(
        torch, "compile", lambda f, **_: compile_(f, fullgraph=True, backend=backend)
    )
    monkeypatch.setattr(cuda, "usable", lambda model: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for pack_tokens in (1, 150, 2000):
            np.testing.assert_allclose(states(model, pack_tokens), expected, atol=1e-5)
    assert not [r for r in caplog.records if r.name.startswith("qwen3")], "nothing fell back"
    cuda.compiled.cache_clear()


@needs_cuda
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("bfloat16", 0.2)])
def test_a_model_computes_the_same_on_cuda(random_checkpoints, dtype, bound):
    expected = states(model_of(random_checkpoints, CPU, "float32"), 2000)
    model = model_of(random_checkpoints, torch.device("cuda"), dtype)
    assert cuda.usable(model) == (
        dtype == "bfloat16" and torch.cuda.get_device_capability() >= (8,)
    )
    for pack_tokens in (1, 150, 2000):
        np.testing.assert_allclose(states(model, pack_tokens), expected, atol=bound)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(HEADS, GROUP, SIZE), (8, 2, 128), (8, 4, 128)])
def test_a_right_kernel_is_used_with_small_and_published_shapes(written_out, device, shape, caplog):
    assert cascade.flash_agrees(device, torch.bfloat16, *shape)
    assert not caplog.records


def too_low(*args, **kwargs):
    out, lse = varlen_attn(*args, **kwargs)
    return out - 1, lse


def with_rows_first(*args, **kwargs):
    out, lse = varlen_attn(*args, **kwargs)
    return out, lse.T


def in_base_2(*args, **kwargs):
    out, lse = varlen_attn(*args, **kwargs)
    return out, lse / 0.6931


def aligned_at_the_first_key(query, key, value, q_ends, k_ends, *rest, **kwargs):
    """The other convention for fewer queries than keys, which would be wrong for us."""
    if kwargs["window_size"] == (-1, 0):
        starts = zip(k_ends[:-1], q_ends.diff(), strict=True)
        first = torch.cat([k + torch.arange(max(n, 1)) for k, n in starts])
        key, value = key[first], value[first]
        k_ends = torch.tensor([0, *q_ends.diff().clamp(min=1).cumsum(0)], dtype=torch.int32)
    return varlen_attn(query, key, value, q_ends, k_ends, *rest, **kwargs)


def broken(*args, **kwargs):
    msg = "no kernel image is available\nfor this device"
    raise RuntimeError(msg)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (aligned_at_the_first_key, "it is wrong by"),
        (too_low, "it is wrong by"),
        (in_base_2, "it is wrong by"),
        (with_rows_first, "it fails with"),
        (broken, "it fails with no kernel image is available)"),
    ],
)
def test_a_kernel_that_does_not_agree_is_not_used(written_out, monkeypatch, caplog, kernel, reason):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert not cascade.flash_agrees(CPU, torch.bfloat16, HEADS, GROUP, SIZE)
    assert len(caplog.records) == 1
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("device", "dtype", "agrees", "expected"),
    [
        ("cuda", torch.bfloat16, True, True),
        ("cuda", torch.float16, True, True),
        ("cuda", torch.bfloat16, False, False),
        ("cuda", torch.float32, True, False),
        ("cpu", torch.bfloat16, True, False),
    ],
)
def test_it_runs_where_the_kernel_agrees(monkeypatch, device, dtype, agrees, expected):
    asked = []

    def tried(*given):
        asked.append(given)
        return agrees

    monkeypatch.setattr(cuda, "flash_agrees", tried)
    assert cuda.usable(stub(device, dtype)) is expected
    assert all(given == (torch.device(device), dtype, 8, 2, 128) for given in asked)


def stub(device, dtype):
    """What is asked of a model before it is wrapped."""
    weight = SimpleNamespace(device=torch.device(device))
    embed_tokens = SimpleNamespace(weight=weight)
    return SimpleNamespace(embed_tokens=embed_tokens, dtype=dtype, config=QWEN_06B)


QWEN_06B = Qwen3Config(
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
)
GIB = 2**30


def test_the_memory_of_a_token():
    assert cuda.token_bytes(QWEN_06B, torch.bfloat16) == 172_032
    assert cuda.token_bytes(QWEN_06B, torch.float32) == 2 * 172_032 - 8 * 1024


@pytest.mark.parametrize(
    ("free", "tokens"),
    [(0, 1024), (GIB, 1024), (2 * GIB, 3072), (5 * GIB, 7168), (6 * GIB, 8192), (80 * GIB, 8192)],
)
def test_packs_are_sized_by_free_memory(free, tokens):
    assert cuda.pack_tokens(free, QWEN_06B, torch.bfloat16) == tokens


def test_the_default_budget_depends_on_the_device(monkeypatch):
    from qwen3_core.model.encoder import _default_pack_tokens

    free = {0: 0, 1: 2 * GIB}
    monkeypatch.setattr(cuda, "available_memory", lambda device: free[device.index])
    for device, tokens in (("cuda:0", 1024), ("cuda:1", 3072), ("mps", 2048), ("cpu", 1024)):
        assert _default_pack_tokens(stub(device, torch.bfloat16)) == tokens


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_arrive_in_order(device):
    found = cascade.to_device(device, [1, 2], [], [3])
    assert [x.tolist() for x in found] == [[1, 2], [], [3]]
    assert {(x.device.type, x.dtype) for x in found} == {(device.type, torch.int32)}
    assert cuda.to_host(found[0]).device.type == "cpu"
    assert cuda.to_host(found[0]).tolist() == [1, 2]


def test_functions_compute_what_layers_do():
    torch.manual_seed(0)
    x, more, weight = torch.randn(3, 12), torch.randn(3, 12), torch.rand(12)
    exact, read = cuda.summed(x, more, weight, 1e-6, torch.bfloat16)
    torch.testing.assert_close(exact, x + more)
    torch.testing.assert_close(read, rms_norm(x + more, weight, 1e-6).bfloat16())
    gate, up = torch.randn(2, 3, 12).bfloat16().unbind()
    assert torch.equal(cuda.swiglu(gate, up), (F.silu(gate.float()) * up.float()).bfloat16())


def test_what_does_not_compile_runs_as_it_is(written_out, monkeypatch, caplog):
    def compile_(function, **_):
        def call(*args):
            msg = "\nCannot find a working triton installation.\nMore advice"
            raise RuntimeError(msg)

        return call

    monkeypatch.undo()
    monkeypatch.setattr("torch.compile", compile_)
    shape = cuda.Shape(16, 24, HEADS, GROUP, SIZE)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert cuda.compiled(CPU, torch.bfloat16, shape, 1e-6) == cuda.Functions()
    (record,) = caplog.records
    assert "Cannot find a working triton installation.)" in record.getMessage()


def test_what_compiles_to_something_else_is_not_used(written_out, monkeypatch, caplog):
    monkeypatch.undo()
    monkeypatch.setattr(
        "torch.compile", lambda f, **_: lambda *args: f(*args) + 1 if f is cuda.swiglu else f(*args)
    )
    shape = cuda.Shape(16, 24, HEADS, GROUP, SIZE)
    with caplog.at_level(logging.WARNING):
        assert cuda.compiled(CPU, torch.float32, shape, 1e-6) == cuda.Functions()
    assert len(caplog.records) == 1


def test_auto_takes_bfloat16_where_the_gpu_multiplies_it(monkeypatch):
    from qwen3_core.model.loading import resolve_dtype

    capability = {"cuda": (8, 0), "cuda:1": (7, 5), "cuda:2": (12, 0)}
    monkeypatch.setattr("torch.cuda.get_device_capability", capability.__getitem__)
    found = [resolve_dtype("auto", device) for device in capability]
    assert found == [torch.bfloat16, torch.float32, torch.bfloat16]
