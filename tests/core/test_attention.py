"""Attention over packs: both ways of computing it, and the choice between them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_core.model import attention
from qwen3_core.model.attention import (
    BlockAttention,
    FusedAttention,
    Segment,
    attention_for,
    last_tokens_of,
    segments_of,
)
from qwen3_core.model.buffers import Buffers
from qwen3_core.model.packing import TokenSequence, Work, next_pack

# A result that does not fit its buffer is a warning of torch's, and no such buffer is right.
pytestmark = pytest.mark.filterwarnings("error:An output with one or more elements was resized")

CPU = torch.device("cpu")
HEADS, GROUP, SIZE = 2, 3, 8


@st.composite
def segment_lists(draw):
    """Segments whose queries lie behind one another, with keys anywhere before row 400."""
    segments, row = [], 0
    pieces = st.lists(st.tuples(st.integers(0, 280), st.integers(1, 120)), max_size=2)
    for count, more, prefix in draw(
        st.lists(st.tuples(st.integers(1, 250), st.integers(0, 30), pieces), min_size=1, max_size=5)
    ):
        queries = slice(row, row := row + count)
        begin = draw(st.integers(0, 400 - count - more))
        before = tuple(slice(start, start + length) for start, length in prefix)
        segments.append(Segment(queries, slice(begin, begin + count + more), before))
    return segments


def test_a_segment_sees_its_prefix_and_itself():
    known: dict[tuple[int, ...], slice] = {
        (9, 9): slice(30, 32),
        (11, 12): slice(32, 33),
        (13, 14): slice(33, 34),
    }
    sequences = [((1, 2), (3,)), ((1, 2), (4, 5)), ((6,), (7,)), ((), (8,)), ((9, 9), (10,))]
    sequences += [((11, 12), (1,)), ((11, 12), (2,)), ((13, 14), (3,))]

    def count(prefix):
        rows = known.get(prefix, slice(0, 0))
        return rows.stop - rows.start

    pack = next_pack([([Work([TokenSequence(*s) for s in sequences])], 100)], count)
    rows = list(range(40))
    seen = [
        (
            rows[s.queries],
            [i for piece in s.prefix for i in rows[piece]],
            rows[s.keys],
            s.has_result,
        )
        for s in segments_of(pack, known)
    ]
    assert seen == [
        ([0, 1], [], [0, 1], False),  # a prefix, then those that share it
        ([2], [0, 1], [2], True),
        ([3, 4], [0, 1], [3, 4], True),
        ([5], [], [5], False),
        ([6], [5], [6], True),
        ([7], [], [7], True),
        ([8], [30, 31], [8], True),  # a known prefix
        ([9], [32], [9], False),  # the rest of one, then those that share both
        ([10], [32, 9], [10], True),
        ([11], [32, 9], [11], True),
        ([12], [33], [12], False),
        ([13], [33, 12], [13], True),
    ]


def test_last_tokens_ask_in_the_order_of_their_rows():
    """A prefix that is laid answers nothing, and takes no row."""
    sequences = [((1, 2), (3,)), ((1, 2), (4, 5)), ((), (8, 9))]
    pack = next_pack([([Work([TokenSequence(*s) for s in sequences])], 100)], lambda _: 0)
    found = last_tokens_of(segments_of(pack, {}))
    assert [(s.queries, s.keys, s.prefix) for s in found] == [
        (slice(0, 1), slice(2, 3), (slice(0, 2),)),
        (slice(1, 2), slice(3, 5), (slice(0, 2),)),
        (slice(2, 3), slice(5, 7), ()),
    ]


@given(segments=segment_lists(), seed=st.integers(0, 2**16), least=st.sampled_from([1, 20, 256]))
def test_blocks_and_fused_attention_see_the_same(segments, seed, least):
    torch.manual_seed(seed)
    count = segments[-1].queries.stop
    query = torch.randn(HEADS, count, GROUP, SIZE)
    keys, values = torch.randn(2, HEADS, 400, SIZE).unbind()
    found, expected = torch.full((2, count, HEADS, GROUP, SIZE), torch.nan).unbind()
    BlockAttention(segments)(query, keys, values, expected, Buffers(CPU))
    FusedAttention(segments, least)(query, keys, values, found, Buffers(CPU))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def compiled_for(dtype):
    """The module, its attention compiled: hypothesis traces a test, which slows a compiler down."""
    compiled = pytest.importorskip("qwen3_core.model.compiled", reason="no extra 'numba'")
    kernel_dtype = compiled.DTYPES[dtype]
    if not compiled.kernels.can_multiply(kernel_dtype):
        pytest.skip(f"this CPU has no instructions for products in {dtype}")
    compiled.kernels.attention(kernel_dtype)
    return compiled


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def compiled(request):
    return compiled_for(request.param), request.param


def test_compiled_attention_over_a_long_text_loses_no_decimals():
    """Thousands of equal terms lose a decimal if they are added to one sum."""
    compiled = compiled_for(torch.float32)
    torch.manual_seed(0)
    count = 8192
    query, keys = torch.randn(1, 1, 1, 64), torch.randn(1, count, 64) / 1000
    values = torch.rand(1, 1, 64) + torch.rand(1, count, 64) / 100 + 1
    segment = Segment(slice(0, 1), slice(0, count))
    found = torch.empty(1, 1, 1, 64)
    compiled.Attention([segment])(query, keys, values, found, Buffers(CPU))
    weights = (keys.double() @ query.double()[0, 0, 0]).softmax(-1)
    exact = weights @ values.double()[0]
    assert ((found.flatten() - exact.flatten()).abs() / exact.flatten()).max() < 1.5e-6


@settings(max_examples=25)
@given(segments=segment_lists(), seed=st.integers(0, 2**16))
def test_compiled_attention_sees_the_same(compiled, segments, seed):
    compiled, dtype = compiled
    torch.manual_seed(seed)
    count = segments[-1].queries.stop
    query = torch.randn(HEADS, count, GROUP, SIZE).to(dtype)
    keys, values = torch.randn(2, HEADS, 400, SIZE).to(dtype).unbind()
    expected, found = torch.full((2, count, HEADS, GROUP, SIZE), torch.nan).to(dtype).unbind()
    compiled.Attention(segments)(query, keys, values, found, Buffers(CPU))
    if dtype == torch.float32:
        BlockAttention(segments)(query, keys, values, expected, Buffers(CPU))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    else:  # only the weights of values and the result are rounded
        exact = torch.full_like(expected, torch.nan, dtype=torch.float32)
        BlockAttention(segments)(query.float(), keys.float(), values.float(), exact, Buffers(CPU))
        torch.testing.assert_close(found.float(), exact, atol=0.02, rtol=2**-7)


@pytest.mark.parametrize(
    ("queries", "keys", "prefix", "fuses"),
    [
        (256, 256, (), True),
        (255, 255, (), False),
        (300, 300, (slice(0, 50), slice(300, 325)), True),
        (300, 300, (slice(0, 50), slice(300, 326)), False),
        (300, 301, (), False),  # of which only the last 300 ask
    ],
)
def test_long_segments_are_fused(monkeypatch, queries, keys, prefix, fuses):
    calls = []
    attend = F.scaled_dot_product_attention

    def noted(query, keys, values, **options):
        assert query.shape == keys.shape == values.shape, "else torch takes a slower way"
        calls.append(query.shape[-2])
        return attend(query, keys, values, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    query = torch.randn(HEADS, 5 + queries, GROUP, SIZE)
    seen = torch.randn(HEADS, 1000, SIZE)
    out = torch.full((5 + queries, HEADS, GROUP, SIZE), torch.nan)
    segment = Segment(slice(5, 5 + queries), slice(500, 500 + keys), prefix)
    fused = FusedAttention([segment], 256)
    fused(query, seen, seen, out, Buffers(CPU))
    assert bool(calls) is fuses
    assert fused._others._segments == ([] if fuses else [segment]), "computed once"
    assert all(count % 64 == 0 for count in calls), "few shapes"
    assert out[5:].isfinite().all()
    calls.clear()
    laid = segment._replace(has_result=False)
    FusedAttention([laid], 256)(query, seen, seen, out, Buffers(CPU))
    assert not calls, "of a prefix more or less may be known"


@pytest.mark.parametrize("kind", [BlockAttention, lambda segments: FusedAttention(segments, 5)])
@pytest.mark.parametrize("count", [1, 5, 64, 100])
@pytest.mark.parametrize("prefix", [(), (slice(200, 203),)])
@pytest.mark.parametrize("more", [0, 3, 40])
def test_what_a_segment_does_not_see_may_be_anything(kind, count, prefix, more):
    """Neighbours that overflowed, rows that only make a usual shape, memory as it was found."""

    class Dirty(Buffers):
        def take(self, name, dtype, *shape):
            return super().take(name, dtype, *shape).fill_(torch.nan)

    torch.manual_seed(count)
    segment = Segment(slice(0, count), slice(7, 7 + count), prefix)
    query = torch.full((HEADS, count + more, GROUP, SIZE), torch.nan)
    query[:, :count].normal_()
    keys, values = torch.full((2, HEADS, 300, SIZE), torch.nan).unbind()
    for rows in (*segment.prefix, segment.keys):
        keys[:, rows].normal_()
        values[:, rows].normal_()
    found, clean = torch.zeros(2, count + more, HEADS, GROUP, SIZE).unbind()
    kind([segment])(query, keys, values, found, Dirty(CPU))
    query, keys, values = (x.nan_to_num() for x in (query, keys, values))
    kind([segment])(query, keys, values, clean, Buffers(CPU))
    assert found[:count].isfinite().all()
    assert torch.equal(found[:count], clean[:count])
    assert not found[count:].any()


ONE = [Segment(slice(0, 1), slice(0, 1))]


@pytest.fixture(params=[True, False], ids=["amx", "without amx"])
def amx(request, monkeypatch):
    attention.has_amx.cache_clear()
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: request.param)
    yield request.param
    attention.has_amx.cache_clear()


def test_cpus_fuse_what_they_are_fast_at(amx):
    for dtype, fused in ((torch.bfloat16, amx), (torch.float32, True), (torch.float16, False)):
        found = attention_for(ONE, device=CPU, dtype=dtype)
        assert type(found) is (FusedAttention if fused else BlockAttention)


def test_a_torch_that_cannot_tell_has_no_amx(monkeypatch):
    monkeypatch.delattr("torch.cpu._is_amx_tile_supported")
    attention.has_amx.cache_clear()
    assert type(attention_for(ONE, device=CPU, dtype=torch.bfloat16)) is BlockAttention
    attention.has_amx.cache_clear()
