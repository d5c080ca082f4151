"""Numba's kernels where it is installed, and the same answers without it."""

import ctypes
import logging
import sys

import numpy as np
import pytest
import torch

from qwen3_core import Embedder, model
from qwen3_core.model import cpu_kernels
from qwen3_core.model.int8 import Int8Linear, Quantized
from qwen3_core.model.linear import FEW, PrepackedLinear, _can_be_prepacked
from tests.conftest import ROOT
from tests.core.test_int8 import needs_int8

CPU = torch.device("cpu")
QUERIES = ["What is Milvus?", "Where are segments stored?", "怎样删除数据?"]


def few_rows(linear):
    from qwen3_core.model.few_rows import few_rows

    return few_rows(linear)


@pytest.fixture
def compiled():
    return pytest.importorskip("qwen3_core.model.compiled", reason="no extra 'numba'")


@pytest.fixture
def kernels(compiled):
    return compiled.kernels


def encoded(dtype, tmp_path, monkeypatch, kernels, way):
    """Vectors of queries: the first computes the prefix too, the others use it; then of all."""
    folder = tmp_path / way  # another name is another engine
    folder.symlink_to(ROOT / "qwen3_core" / "tiny" / "embedding")
    with monkeypatch.context() as patch:
        if way == "torch":
            patch.setattr(cpu_kernels, "compiled_for", lambda device, dtype, *, int8: None)
        elif way == "one thread":
            patch.setattr(kernels, "_parallel", lambda: None)
            patch.setattr(kernels, "run_on_all_threads", lambda: False)
        embedder = Embedder(folder, dtype=dtype)
        assert (embedder.engine.encoder._compiled is not None) is (way != "torch")
        found = [embedder.embed_queries([query])[0] for query in QUERIES]
        found += [*embedder.embed_queries(QUERIES)]
        embedder.close()
    return np.stack(found)


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [("float32", 1e-6), ("bfloat16", 0.01), pytest.param("int8", 0.02, marks=needs_int8)],
)
def test_vectors_are_the_same_without_numba_or_its_threads(
    kernels, dtype, bound, tmp_path, monkeypatch
):
    ways = ("torch", "numba", "one thread")
    plain, *found = (encoded(dtype, tmp_path, monkeypatch, kernels, way) for way in ways)
    for vectors in found:
        assert np.abs(vectors - plain).max() < bound


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", pytest.param("int8", marks=needs_int8)])
def test_vectors_do_not_depend_on_the_number_of_threads(compiled, dtype, tmp_path, monkeypatch):
    embedder = Embedder("tiny", dtype=dtype)
    together = embedder.embed_queries(QUERIES)
    with monkeypatch.context() as patch:
        patch.setattr(compiled.kernels, "_parallel", lambda: None)  # as without GNU's OpenMP
        serial = embedder.embed_queries(QUERIES)
    assert np.array_equal(together, serial)


@pytest.mark.parametrize("team", [1, 2, 5])
def test_a_kernel_does_all_work_once_however_many_threads_run_it(compiled, team, monkeypatch):
    """GNU's OpenMP may give fewer threads than it was asked for."""
    kernels = compiled.kernels

    def parallel(address, numbers, threads, flags):
        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
        for _ in range(team):
            run(ctypes.addressof(numbers))

    x, more = torch.randn(7, 64), torch.randn(7, 64)
    expected = x + more
    linear = linear_of(torch.float32, 64, 640)
    with torch.inference_mode():
        few, product = few_rows(linear), linear(x)
    monkeypatch.setattr(kernels, "_parallel", lambda: parallel)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert few is None or torch.equal(few.product(x), product)
    kernels.run(kernels.add(kernels.FLOAT), x.data_ptr(), more.data_ptr(), 0, *x.shape)
    assert torch.equal(x, expected)


def linear_of(dtype, width, columns, *, bias=False):
    plain = torch.nn.Linear(width, columns, bias=bias).requires_grad_(False)
    if dtype == torch.int8:
        return Int8Linear(plain)
    if not _can_be_prepacked(plain.weight.to(dtype)):
        pytest.skip(f"oneDNN stores no {dtype} weights on this CPU")
    return PrepackedLinear(plain.to(dtype))


def rows_of(dtype, count, width):
    x = torch.randn(count, width)
    return Quantized.of(x) if dtype == torch.int8 else x.to(dtype)


FEW_ROWS_DTYPES = [
    torch.float32,
    torch.bfloat16,
    pytest.param(torch.int8, marks=needs_int8),
]


@pytest.mark.parametrize("dtype", FEW_ROWS_DTYPES)
@pytest.mark.parametrize(("width", "columns"), [(1024, 192), (64, 128), (512, 64), (128, 320)])
def test_products_of_few_rows_are_those_of_onednn_to_the_bit(compiled, dtype, width, columns):
    torch.manual_seed(1)
    with torch.inference_mode():
        linear = linear_of(dtype, width, columns)
        few = few_rows(linear)
        if few is None:
            pytest.skip(f"oneDNN stores {dtype} weights in another layout here")
        for count in range(1, FEW + 1):
            x = rows_of(dtype, count, width)
            assert few.takes(x)
            assert torch.equal(few.product(x), linear(x)), f"{count} rows"
        assert not few.takes(rows_of(dtype, FEW + 1, width))


@pytest.mark.parametrize("dtype", FEW_ROWS_DTYPES)
def test_swiglu_of_few_rows_is_that_of_many(compiled, dtype):
    """Alone, a text takes one way; in a larger pack another one."""
    torch.manual_seed(2)
    with torch.inference_mode():
        gate, up = linear_of(dtype, 128, 192), linear_of(dtype, 128, 192)
        few = few_rows(gate), few_rows(up)
        if None in few:
            pytest.skip(f"oneDNN stores {dtype} weights in another layout here")
        x = rows_of(dtype, 12, 128)
        products = gate(x), up(x)
        out, found = torch.empty_like(products[0]), torch.empty_like(products[0])
        kernel_dtype = compiled.DTYPES[out.dtype]
        few_products = few[0].product(x), few[1].product(x)
        for (a, b), into in ((products, out), (few_products, found)):
            compiled.kernels.run(
                compiled.kernels.swiglu(kernel_dtype, kernel_dtype),
                *(a.data_ptr(), b.data_ptr(), 0, into.data_ptr(), 0, *into.shape),
            )
        assert torch.equal(found, out)
        exact = torch.nn.functional.silu(products[0].float()) * products[1].float()
        torch.testing.assert_close(found.float(), exact, atol=1e-6, rtol=2**-8)


@pytest.mark.parametrize("dtype", FEW_ROWS_DTYPES)
@pytest.mark.parametrize(("width", "columns"), [(96, 200), (100, 40), (90, 64), (32, 1)])
def test_other_shapes_get_the_same_product_or_none(compiled, dtype, width, columns):
    torch.manual_seed(1)
    with torch.inference_mode():
        linear, x = linear_of(dtype, width, columns), rows_of(dtype, 7, width)
        few = few_rows(linear)
        assert torch.equal(linear(x) if few is None else few.product(x), linear(x))


def test_few_rows_need_weights_without_bias_in_onednns_layout(compiled, monkeypatch):
    assert few_rows(linear_of(torch.float32, 64, 64, bias=True)) is None
    linear = linear_of(torch.float32, 64, 320)
    monkeypatch.setattr(PrepackedLinear, "forward", lambda self, x: x.new_zeros(len(x), 320))
    assert few_rows(linear) is None, "the results differ"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_and_devices_are_left_to_torch(dtype):
    assert cpu_kernels.compiled_for(CPU, dtype) is None
    assert cpu_kernels.compiled_for(torch.device("cuda"), torch.bfloat16) is None


def test_with_many_threads_torch_is_faster_than_one_thread(compiled, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    if compiled.kernels.run_on_all_threads():
        assert cpu_kernels.compiled_for(CPU, torch.float32) is compiled
    monkeypatch.setattr(compiled.kernels, "run_on_all_threads", lambda: False)
    assert not compiled.attends(torch.float32)
    assert few_rows(linear_of(torch.float32, 64, 64)) is None
    assert cpu_kernels.compiled_for(CPU, torch.float32) is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert cpu_kernels.compiled_for(CPU, torch.float32) is compiled


@pytest.fixture
def untried():
    cpu_kernels._compiled.cache_clear()
    yield
    cpu_kernels._compiled.cache_clear()


def test_without_numba_there_are_no_kernels(untried, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("numba_kernels", "few_rows", "compiled"):
        monkeypatch.delitem(sys.modules, f"qwen3_core.model.{name}", raising=False)
        monkeypatch.delattr(model, name, raising=False)
    with caplog.at_level(logging.INFO):
        assert cpu_kernels.compiled_for(CPU, torch.float32) is None
    assert not caplog.records


def test_a_numba_that_does_not_work_is_named(kernels, untried, monkeypatch, caplog):
    def fail(*args):
        msg = "cannot determine the type of slice"
        raise TypeError(msg)

    monkeypatch.setattr(kernels, "norm", fail)
    assert cpu_kernels.compiled_for(CPU, torch.float32) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "numba" in record.message
    assert "cannot determine the type of slice" in record.message


def norm(kernels, x, out):
    dtype = kernels.FLOAT if out.dtype == torch.float32 else kernels.BITS
    weight, epsilon = torch.ones(x.shape[1]), torch.tensor([1e-6])
    places = (t.data_ptr() for t in (x, weight, epsilon, out))
    kernels.run(kernels.norm(dtype), *places, 0, *x.shape)


def quantized(kernels, x):
    values, scales = torch.empty(x.shape, dtype=torch.uint8), torch.empty(len(x), 1)
    places = (t.data_ptr() for t in (x, values, scales))
    kernels.run(kernels.quantize(kernels.FLOAT), *places, *x.shape)
    return values, scales


@pytest.mark.parametrize("setting", ["CPU_NAME", "CPU_FEATURES"])
def test_numba_compiling_for_another_cpu_has_no_products(kernels, monkeypatch, setting):
    kernels.can_multiply.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(kernels.config, setting, "generic")
        assert not any(map(kernels.can_multiply, kernels.NEEDED_FEATURE))
    kernels.can_multiply.cache_clear()


def test_a_debugger_does_not_trace_the_compiler(compiled, untried, monkeypatch):
    def trace(*args):
        return trace

    found = []
    monkeypatch.setattr(compiled, "compile_kernels", lambda *_, **__: found.append(sys.gettrace()))
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert cpu_kernels.compiled_for(CPU, torch.float32) is compiled
        found.append(sys.gettrace())
    finally:
        sys.settrace(before)
    assert found == [None, trace]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(kernels, dtype, value):
    x = torch.ones(3, 8)
    x[1, 2] = value
    out = torch.empty(3, 8, dtype=dtype)
    norm(kernels, x, out)
    assert not out[1].isfinite().all()
    assert out[[0, 2]].isfinite().all()


def test_bfloat16_is_rounded_to_nearest_even(kernels):
    x = torch.cat((torch.randn(1, 4096), torch.tensor([[1 + 2**-8, 1 + 3 * 2**-8]])), 1)
    scaled = torch.empty_like(x)
    rounded = torch.empty(x.shape, dtype=torch.bfloat16)
    norm(kernels, x, scaled)
    norm(kernels, x, rounded)
    torch.testing.assert_close(rounded, scaled.bfloat16(), atol=0, rtol=0)


def test_rows_are_quantised_as_by_torch(kernels):
    x = torch.randn(5, 96)
    x[2] = 0
    values, scales = quantized(kernels, x)
    torch.testing.assert_close(scales[:, 0], (x.abs().amax(1) / 127).clamp(min=1e-30))
    assert torch.equal(values.int() - 128, (x / scales).round().int())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_has_a_scale_that_is_not(kernels, value):
    x = torch.ones(3, 8)
    x[1, 2] = value
    _, scales = quantized(kernels, x)
    assert scales.isfinite().flatten().tolist() == [True, False, True]
