"""Norms, rotary embeddings, attention, SwiGLU, quantisation and small products, compiled by numba.

Each kernel replaces about ten torch operations: one call, one pass over memory, on torch's threads.
A query has a dozen new tokens: for so few, calling the operations takes longer than computing them.

A kernel is a function of a table of 64-bit integers: sizes, and addresses of tensors, whose rows
are contiguous. `qwen3_core.model.compiled` fills the tables and says what each kernel does. Numbers
are float32 (`FLOAT`), bfloat16, of which NumPy sees the bits (`BITS`), or quantised (`BYTE`).

All compiled functions are in this file, because numba's cache on disk notices when a kernel's own
file changes, but not when another one does. Importing this module needs numba.
"""

import ctypes  # noqa: TID251 - only for a library that the process has loaded already
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, config, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic, overload

from qwen3_core.model import int8
from qwen3_core.model.buffers import openmp

FLOAT, BITS, BYTE, WORD, INTEGER = np.float32, np.uint16, np.uint8, np.uint32, np.int64

VALUES_CHUNK = 64
"""Words of values (64 keys in float32, 128 in bfloat16) after which attention adds up its sums: one
sum over the 8,192 keys of a long text would lose more than a decimal."""

ONE, HALF = np.float32(1), np.float32(0.5)
UPPER, NEAREST, ODD = np.uint32(16), np.uint32(0x7FFF), np.uint32(1)
SIGN, POSITIVE = np.int32(31), np.int32(0x7FFFFFFF)
ABSOLUTE = np.uint32(0x7FFFFFFF)
LARGEST, SMALLEST = np.float32(int8.LARGEST), np.float32(int8.SMALLEST)
ZERO = np.int32(int8.ZERO)

COLUMNS = 64
"""Columns of a block of weights, in oneDNN's layout and here."""

PIECES = 4
"""Pieces of the weights per thread: a thread reads a piece's blocks one after the other, which is
faster, and a thread that is slower reads fewer pieces."""

QUERY_ROWS = 48
"""Rows (queries times heads of a group) that attention computes at a time: eight tiles. More rows
compute more of the scores that the causal mask hides."""


def _cached(decorator: Callable[..., Any], function: Any, **settings: Any) -> Any:
    """Compile a function, and keep the result on disk where the package's folder is writable."""
    try:
        return decorator(cache=True, error_model="numpy", **settings)(function)
    except RuntimeError:
        return decorator(error_model="numpy", **settings)(function)


def _compiled(function: Any) -> Any:
    """Compile a function that kernels call."""
    return _cached(njit, function)


def _contracted(function: Any) -> Any:
    """The same; a product may be added without being rounded before."""
    return _cached(njit, function, fastmath={"contract"})


def _reordered(function: Any) -> Any:
    """The same; sums may be reordered. The order is another one than in torch."""
    return _cached(njit, function, fastmath={"contract", "nsz", "reassoc"})


def _intrinsic(function: Any) -> Any:
    """A function that generates code itself; integer constants are known to it."""
    return intrinsic(prefer_literal=True)(function)


def _kernel(function: Any) -> Any:
    """Compile a function of a table."""
    table = types.void(types.CPointer(types.int64))
    return _cached(lambda **settings: cfunc(table, **settings), function)


# Threads


@lru_cache
def _parallel() -> Any:
    """GNU OpenMP's function that runs another one on each thread, or None without that library."""
    library = openmp()
    if library is None:
        return None
    function = library.GOMP_parallel
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


def run_on_all_threads() -> bool:
    """Whether kernels run on all of torch's threads: its wheels for Linux have GNU's OpenMP.

    Threads of another library would compete with torch's, which spin for some milliseconds after
    each of its operations.
    """
    return _parallel() is not None or torch.get_num_threads() == 1


def run(kernel: Any, *table: int) -> None:
    """Run a kernel on each of torch's threads, or on this one alone (see `run_on_all_threads`).

    Before the table stand two numbers: the pieces of work claimed so far (`_claim`), and the
    threads asked for. OpenMP may give fewer, so what a kernel computes must not depend on them.

    Args:
        kernel: A compiled kernel.
        table: Sizes, and addresses of tensors that the caller keeps.
    """
    parallel = _parallel()
    threads = 1 if parallel is None else torch.get_num_threads()
    numbers = (ctypes.c_int64 * (2 + len(table)))(0, threads, *table)
    if parallel is None:
        kernel.ctypes(numbers)
    else:
        parallel(kernel.address, numbers, threads, 0)


@_intrinsic
def _claim(typing_context: Any, table: Any) -> Any:
    """The next piece of work that no thread has begun, from 0 on; counted before the table."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", arguments[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(table), generate


# Numbers


@_intrinsic
def _pointer(typing_context: Any, address: Any, dtype: Any) -> Any:
    """An address as a pointer to numbers of a dtype."""
    signature = types.CPointer(dtype.dtype)(address, dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


@_compiled
def _to_bfloat16(x: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32, ties to even."""
    bits = np.float32(x).view(WORD)
    return np.uint16((bits + NEAREST + ((bits >> UPPER) & ODD)) >> UPPER)


def _read(row: Any, into: Any) -> None:
    """Copy a row of float32 or bfloat16 into float32."""


@overload(_read, inline="always")
def _read_dtype(row: Any, into: Any) -> Any:
    if row.dtype.name == "float32":

        def read(row: Any, into: Any) -> None:
            for j in range(len(row)):
                into[j] = row[j]
    else:

        def read(row: Any, into: Any) -> None:
            for j in range(len(row)):
                into[j] = np.uint32(np.uint32(row[j]) << UPPER).view(np.float32)

    return read


def _write(row: Any, out: Any) -> Any:
    """Copy a row of float32 into any dtype; returns its scale if it is quantised, else 1."""


@overload(_write, inline="always")
def _write_dtype(row: Any, out: Any) -> Any:
    if out.dtype.name == "float32":

        def write(row: Any, out: Any) -> Any:
            for j in range(len(row)):
                out[j] = row[j]
            return ONE
    elif out.dtype.name == "uint16":

        def write(row: Any, out: Any) -> Any:
            for j in range(len(row)):
                out[j] = _to_bfloat16(row[j])
            return ONE
    else:

        def write(row: Any, out: Any) -> Any:
            largest = np.uint32(0)  # as bits: NaN is more than infinity
            for j in range(len(row)):
                largest = max(largest, np.float32(row[j]).view(WORD) & ABSOLUTE)
            scale = np.uint32(largest).view(FLOAT) / LARGEST
            scale = SMALLEST if scale < SMALLEST else scale  # noqa: FURB136 - see `_exp`
            for j in range(len(row)):
                out[j] = np.uint8(np.int32(np.rint(row[j] / scale)) + ZERO)
            return scale

    return write


# The exponential function: 2**n * exp(r) with |r| <= log(2) / 2, by the polynomial and the log(2)
# in two parts of the Cephes library (expf). Its relative error is 1.2e-7.
LOWEST, HIGHEST = np.float32(-87), np.float32(88)
LOG2_E = np.float32(1.44269504)
LOG_2, LOG_2_REST = np.float32(0.693359375), np.float32(-2.12194440e-4)
EXP_7, EXP_6, EXP_5, EXP_4, EXP_3, EXP_2 = (
    np.float32(c)
    for c in (1.98756915e-4, 1.39819995e-3, 8.33345191e-3, 4.16657959e-2, 1.66666655e-1, 0.5)
)
BIAS, MANTISSA = np.int32(127), np.int32(23)


@_contracted
def _exp(x: Any) -> Any:
    """The exponential function; of numbers beyond -87 and 88 as of these; NaN stays NaN."""
    x = LOWEST if x < LOWEST else x  # noqa: FURB136 - numba's max and min lose NaN
    x = HIGHEST if x > HIGHEST else x  # noqa: FURB136
    n = np.floor(x * LOG2_E + HALF)
    r = (x - n * LOG_2) - n * LOG_2_REST
    y = ((((EXP_7 * r + EXP_6) * r + EXP_5) * r + EXP_4) * r + EXP_3) * r + EXP_2
    power = np.int32((np.int32(n) + BIAS) << MANTISSA).view(np.float32)
    return (y * r * r + r + ONE) * power


@_reordered
def _scale_of_norm(x: Any, epsilon: Any) -> Any:
    """What the root mean square norm multiplies a row by, before its weights."""
    squares = np.float32(0)
    for j in range(len(x)):
        squares += x[j] * x[j]
    return ONE / np.sqrt(squares / np.float32(len(x)) + epsilon)


@_compiled
def _largest(x: Any) -> Any:
    """The largest number of a row; of integers that are ordered alike, since those vectorise."""
    largest = np.int32(-(2**31))
    for j in range(len(x)):
        bits = np.int32(np.float32(x[j]).view(np.int32))
        largest = max(largest, bits ^ ((bits >> SIGN) & POSITIVE))
    return np.int32(largest ^ ((largest >> SIGN) & POSITIVE)).view(FLOAT)


@_reordered
def _exp_row(x: Any) -> Any:
    """Replace a row by the exponentials of its differences from its largest number; their sum."""
    largest, total = _largest(x), np.float32(0)
    for j in range(len(x)):
        x[j] = _exp(x[j] - largest)
        total += x[j]
    return total


# Kernels on rows


@lru_cache
def norm(out_dtype: Any) -> Any:
    """Root mean square norm of rows.

    Table: addresses of x (rows, width) float32, weight (width,) float32, epsilon (1,) float32, out
    (rows, width), its scales (rows,) float32 if it is quantised; rows, width.
    """

    @_kernel
    def kernel(table: Any) -> None:
        n = carray(table, (9,))[2:]
        rows, width = n[5], n[6]
        x = carray(_pointer(n[0], FLOAT), (rows, width))
        weight = carray(_pointer(n[1], FLOAT), (width,))
        epsilon = carray(_pointer(n[2], FLOAT), (1,))[0]
        out = carray(_pointer(n[3], out_dtype), (rows, width))
        scales = carray(_pointer(n[4], FLOAT), (rows,))
        normed = np.empty(width, np.float32)
        i = _claim(table)
        while i < rows:
            factor = _scale_of_norm(x[i], epsilon)
            for j in range(width):
                normed[j] = x[i, j] * factor * weight[j]
            scale = _write(normed, out[i])
            if out.itemsize == 1:
                scales[i] = scale
            i = _claim(table)

    return kernel


@lru_cache
def rotate(dtype: Any, out_dtype: Any) -> Any:
    """Norm and rotary embedding of query and key heads; value heads are copied.

    Table: addresses of the merged projection's output (rows, query heads + 2 * kv_heads, head_dim);
    factors (rows,) float32 of its rows, or 0; weight (query heads + kv_heads, head_dim) float32;
    epsilon (1,) float32; cos and sin, each (rows, head_dim / 2) float32; query (kv_heads, T, G,
    head_dim), keys (kv_heads, S, head_dim) and values (S, kv_heads, head_dim); rows, the first row
    to write, T, S, kv_heads, G, head_dim.
    """

    @_kernel
    def kernel(table: Any) -> None:
        n = carray(table, (18,))[2:]
        rows, first_row, all_rows, all_keys = n[9], n[10], n[11], n[12]
        heads, group, size = n[13], n[14], n[15]
        queries, half = heads * group, size // 2
        qkv = carray(_pointer(n[0], dtype), (rows, queries + 2 * heads, size))
        factors = carray(_pointer(n[1], FLOAT), (rows,))
        has_factors = n[1] != 0
        weight = carray(_pointer(n[2], FLOAT), (queries + heads, size))
        epsilon = carray(_pointer(n[3], FLOAT), (1,))[0]
        cos = carray(_pointer(n[4], FLOAT), (rows, half))
        sin = carray(_pointer(n[5], FLOAT), (rows, half))
        query = carray(_pointer(n[6], out_dtype), (heads, all_rows, group, size))
        keys = carray(_pointer(n[7], out_dtype), (heads, all_keys, size))
        values = carray(_pointer(n[8], out_dtype), (all_keys, heads, size))
        x, rotated = np.empty(size, np.float32), np.empty(size, np.float32)
        a, b, left, right = x[:half], x[half:], rotated[:half], rotated[half:]
        i = _claim(table)
        while i < rows:
            row = first_row + i
            factor = factors[i] if has_factors else ONE
            for head in range(queries + 2 * heads):
                _read(qkv[i, head], x)
                for j in range(size):
                    x[j] *= factor
                if head >= queries + heads:
                    _write(x, values[row, head - queries - heads])
                    continue
                scale = _scale_of_norm(x, epsilon)
                for j in range(size):
                    x[j] *= scale * weight[head, j]
                for j in range(half):
                    left[j] = a[j] * cos[i, j] - b[j] * sin[i, j]
                    right[j] = b[j] * cos[i, j] + a[j] * sin[i, j]
                if head < queries:
                    _write(rotated, query[head // group, row, head % group])
                else:
                    _write(rotated, keys[head - queries, row])
            i = _claim(table)

    return kernel


@lru_cache
def swiglu(dtype: Any, out_dtype: Any) -> Any:
    """SiLU of one projection's rows times the other's.

    Table: addresses of gate and up, each (rows, width); factors (rows,) float32 of both, or 0; out
    (rows, width); its scales (rows,) float32 if it is quantised; rows, width.
    """

    @_kernel
    def kernel(table: Any) -> None:
        n = carray(table, (9,))[2:]
        rows, width = n[5], n[6]
        gate = carray(_pointer(n[0], dtype), (rows, width))
        up = carray(_pointer(n[1], dtype), (rows, width))
        factors = carray(_pointer(n[2], FLOAT), (rows,))
        has_factors = n[2] != 0
        out = carray(_pointer(n[3], out_dtype), (rows, width))
        scales = carray(_pointer(n[4], FLOAT), (rows,))
        a, b = np.empty(width, np.float32), np.empty(width, np.float32)
        i = _claim(table)
        while i < rows:
            factor = factors[i] if has_factors else ONE
            _read(gate[i], a)
            _read(up[i], b)
            for j in range(width):
                x = a[j] * factor
                a[j] = x / (ONE + _exp(-x)) * (b[j] * factor)
            scale = _write(a, out[i])
            if out.itemsize == 1:
                scales[i] = scale
            i = _claim(table)

    return kernel


@lru_cache
def add(dtype: Any) -> Any:
    """Rows added to others.

    Table: addresses of x (rows, width) float32, changed; what is added (rows, width); factors
    (rows,) float32 of that, or 0; rows, width.
    """

    @_kernel
    def kernel(table: Any) -> None:
        n = carray(table, (7,))[2:]
        rows, width = n[3], n[4]
        x = carray(_pointer(n[0], FLOAT), (rows, width))
        more = carray(_pointer(n[1], dtype), (rows, width))
        factors = carray(_pointer(n[2], FLOAT), (rows,))
        has_factors = n[2] != 0
        row = np.empty(width, np.float32)
        i = _claim(table)
        while i < rows:
            factor = factors[i] if has_factors else ONE
            _read(more[i], row)
            for j in range(width):
                x[i, j] += row[j] * factor
            i = _claim(table)

    return kernel


@lru_cache
def quantize(dtype: Any) -> Any:
    """Rows in 8-bit integers; see `qwen3_core.model.int8.Quantized`.

    Table: addresses of x (rows, width), values (rows, width) and scales (rows,) float32; rows,
    width.
    """

    @_kernel
    def kernel(table: Any) -> None:
        n = carray(table, (7,))[2:]
        rows, width = n[3], n[4]
        x = carray(_pointer(n[0], dtype), (rows, width))
        values = carray(_pointer(n[1], BYTE), (rows, width))
        scales = carray(_pointer(n[2], FLOAT), (rows,))
        row = np.empty(width, np.float32)
        i = _claim(table)
        while i < rows:
            _read(x[i], row)
            scales[i] = _write(row, values[i])
            i = _claim(table)

    return kernel


# Products in the CPU's instructions. All read words of four bytes: one float32, two bfloat16 or
# four integers, whose products with the weights' word are added to one sum. Weights are blocks of
# (words, 64).

LANES = 16
"""Words of a register."""

WORDS = ir.VectorType(ir.IntType(32), LANES)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
NEEDED_FEATURE = {FLOAT: "avx512f", BITS: "avx512bf16", BYTE: "avx512vnni"}


@lru_cache
def can_multiply(dtype: Any) -> bool:
    """Whether this CPU has the instructions for products of a dtype, and numba compiles for it.

    LLVM ends the process where the CPU that it compiles for lacks an instruction.
    """
    if any(getattr(config, name) for name in ("CPU_NAME", "CPU_FEATURES")):  # set by the user
        return False
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512f") and features.get(NEEDED_FEATURE[dtype]))


class _BFloat16(ir.types._BaseFloatType):  # noqa: SLF001 - llvmlite has no such type
    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


_BFloat16._create_instance()  # noqa: SLF001


def _multiply_add(builder: Any, size: int) -> Callable[[Any, Any, Any], Any]:
    """The instruction that adds products of registers of words to sums, by bytes of a number."""
    integers = ir.VectorType(ir.IntType(8), 4 * LANES)
    name, total, factor = {
        4: ("llvm.fma.v16f32", FLOATS, FLOATS),
        2: ("llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, ir.VectorType(_BFloat16(), 2 * LANES)),
        1: (
            "llvm.x86.avx512.vpdpbusd.512",
            WORDS,
            integers if llvm.llvm_version_info[0] >= 22 else WORDS,
        ),
    }[size]
    is_last = size == 4  # the sum is this instruction's last argument
    arguments = [factor, factor, total] if is_last else [total, factor, factor]
    signature = ir.FunctionType(total, arguments)
    function = cgutils.get_or_insert_function(builder.module, signature, name)

    def multiply_add(sums: Any, x: Any, weights: Any) -> Any:
        x, weights = builder.bitcast(x, factor), builder.bitcast(weights, factor)
        return builder.call(function, [x, weights, sums] if is_last else [sums, x, weights])

    return multiply_add


@_intrinsic
def _tile(
    typing_context: Any,
    rows: Any,
    x: Any,
    weights: Any,
    out: Any,
    add: Any,
) -> Any:
    """The product of a few rows with a block of weights; the sums stay in registers.

    Args:
        typing_context: Numba's.
        rows: Number of rows, a constant of at most 6.
        x: (rows, at least words * numbers in a word) FLOAT, BITS or BYTE.
        weights: (words, 64) WORD; bytes are signed.
        out: (rows, 64) float32, or int32 of bytes, written.
        add: Whether to add to `out`.
    """
    count, size = rows.literal_value, x.dtype.bitwidth // 8
    signature = types.void(rows, x, weights, out, add)
    i32, i64 = ir.IntType(32), ir.IntType(64)
    sums_type = WORDS if size == 1 else FLOATS
    registers = COLUMNS // LANES
    places = [(i, j) for i in range(count) for j in range(registers)]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = [
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (1, 2, 3)
        ]
        starts = [builder.ptrtoint(array.data, i64) for array in arrays]
        strides = [cgutils.unpack_tuple(builder, array.strides)[0] for array in arrays]
        words = cgutils.unpack_tuple(builder, arrays[1].shape)[0]

        def at(array: int, row: Any, offset: Any, dtype: Any) -> Any:
            """A pointer to an array's row, plus an offset in bytes."""
            begin = builder.add(starts[array], builder.mul(row, strides[array]))
            return builder.inttoptr(builder.add(begin, offset), dtype.as_pointer())

        sums = {place: cgutils.alloca_once(builder, sums_type) for place in places}
        for place in places:
            builder.store(ir.Constant(sums_type, None), sums[place])
        multiply_add = _multiply_add(builder, size)
        with cgutils.for_range(builder, words) as loop:
            factors = [
                builder.load(at(1, loop.index, i64(64 * j), WORDS), align=4)
                for j in range(registers)
            ]
            for i in range(count):
                place = at(0, i64(i), builder.mul(loop.index, i64(4)), i32)
                word = builder.load(place, align=4)
                first = builder.insert_element(ir.Constant(WORDS, ir.Undefined), word, i32(0))
                all_same = builder.shuffle_vector(first, first, ir.Constant(WORDS, [0] * LANES))
                for j in range(registers):
                    total = multiply_add(builder.load(sums[i, j]), all_same, factors[j])
                    builder.store(total, sums[i, j])
        with builder.if_then(context.is_true(builder, signature.args[4], arguments[4])):
            plus = builder.add if size == 1 else builder.fadd
            for i, j in places:
                before = builder.load(at(2, i64(i), i64(64 * j), sums_type), align=4)
                builder.store(plus(before, builder.load(sums[i, j])), sums[i, j])
        for i, j in places:
            place = at(2, i64(i), i64(64 * j), sums_type)
            builder.store(builder.load(sums[i, j]), place, align=4)
        return context.get_dummy_value()

    return signature, generate


@_compiled
def _block_product(x: Any, weights: Any, chunk: Any, out: Any) -> None:
    """The product of any number of rows with a block of weights.

    Args:
        x: (rows, words * numbers in a word); see `_tile`.
        weights: (words, 64) WORD.
        chunk: Words after which the sums are added to `out` and start again from 0.
        out: (rows, 64) float32, or int32 of bytes, written.
    """
    rows, numbers = len(x), 4 // x.itemsize
    for begin in range(0, len(weights), chunk):
        part, add = weights[begin : begin + chunk], begin > 0
        i = 0
        while rows - i >= 6:  # more sums than that do not fit into 32 registers
            _tile(6, x[i : i + 6, begin * numbers :], part, out[i : i + 6], add)
            i += 6
        while rows - i >= 4:
            _tile(4, x[i : i + 4, begin * numbers :], part, out[i : i + 4], add)
            i += 4
        while rows - i >= 1:
            _tile(1, x[i : i + 1, begin * numbers :], part, out[i : i + 1], add)
            i += 1


# Kernels of products


def _finish(sums: Any, scales: Any, zeros: Any, factor: Any, row: Any) -> None:
    """A row's sums as float32: of bytes without zero points, and scaled."""


@overload(_finish, inline="always")
def _finish_dtype(sums: Any, scales: Any, zeros: Any, factor: Any, row: Any) -> Any:
    if sums.dtype.name == "float32":

        def finish(sums: Any, scales: Any, zeros: Any, factor: Any, row: Any) -> None:
            for j in range(len(row)):
                row[j] = sums[j]
    else:

        def finish(sums: Any, scales: Any, zeros: Any, factor: Any, row: Any) -> None:
            for j in range(len(row)):
                row[j] = np.float32(sums[j] - zeros[j]) * scales[j] * factor

    return finish


@lru_cache
def product(dtype: Any, out_dtype: Any) -> Any:
    """Rows times weights.

    Table: addresses of x (rows, width) and its scales (rows,) float32, the weights' blocks, their
    scales (columns,) float32 and what x's zero points add (columns,) int32, out (rows, columns);
    rows, width, columns, chunk (see `_block_product`). Only bytes have scales and zero points.
    """
    sums_dtype = np.int32 if dtype is BYTE else np.float32

    @_kernel
    def kernel(table: Any) -> None:
        n = carray(table, (12,))[2:]
        rows, width, columns, chunk = n[6], n[7], n[8], n[9]
        blocks = -(-columns // COLUMNS)
        x = carray(_pointer(n[0], dtype), (rows, width))
        factors = carray(_pointer(n[1], FLOAT), (rows,))
        weights = carray(_pointer(n[2], WORD), (blocks, width * x.itemsize // 4, COLUMNS))
        scales = carray(_pointer(n[3], FLOAT), (columns,))
        zeros = carray(_pointer(n[4], np.int32), (columns,))
        out = carray(_pointer(n[5], out_dtype), (rows, columns))
        sums = np.empty((rows, COLUMNS), sums_dtype)
        exact = np.empty(COLUMNS, np.float32)
        each = -(-blocks // (PIECES * table[1]))
        first = each * _claim(table)
        while first < blocks:
            for block in range(first, min(first + each, blocks)):
                column = block * COLUMNS
                row = exact[: columns - column]
                _block_product(x, weights[block], chunk, sums)
                for i in range(rows):
                    factor = factors[i] if x.itemsize == 1 else ONE
                    _finish(sums[i], scales[column:], zeros[column:], factor, row)
                    _write(row, out[i, column : column + COLUMNS])
            first = each * _claim(table)

    return kernel


@lru_cache
def attention(dtype: Any) -> Any:
    """Causal attention; see `qwen3_core.model.attention.Attention`.

    Table: addresses of query (kv_heads, T, G, head_dim), keys (kv_heads, S, head_dim), values (S,
    kv_heads, head_dim), out (T, kv_heads, G, head_dim), the segments' query rows (segments, 2)
    int64 and their pieces of keys (segments, pieces, 2) int64; segments, pieces, the most keys of a
    segment, kv_heads, T, S, G, head_dim.
    """

    @_kernel
    def kernel(table: Any) -> None:
        n = carray(table, (16,))[2:]
        segments, most_pieces, longest = n[6], n[7], n[8]
        heads, all_rows, all_keys, group, size = n[9], n[10], n[11], n[12], n[13]
        query = carray(_pointer(n[0], dtype), (heads, all_rows * group, size))
        words = size * query.itemsize // 4
        keys = carray(_pointer(n[1], WORD), (heads, all_keys, words))
        values = carray(_pointer(n[2], dtype), (all_keys, heads, size))
        out = carray(_pointer(n[3], dtype), (all_rows, heads, group, size))
        queries = carray(_pointer(n[4], INTEGER), (segments, 2))
        pieces = carray(_pointer(n[5], INTEGER), (segments, most_pieces, 2))
        numbers = 4 // query.itemsize  # in a word
        step = max(QUERY_ROWS // group, 1)  # queries at a time
        blocks = -(-longest // COLUMNS)
        columns = -(-size // COLUMNS)
        # The keys are weights of one product, the values of another.
        key_blocks = np.empty((blocks, words, COLUMNS), np.uint32)
        value_blocks = np.zeros((columns, blocks * COLUMNS // numbers, COLUMNS, numbers), dtype)
        value_words = value_blocks.view(np.uint32)
        scores = np.empty((step * group, blocks * COLUMNS), np.float32)
        weights = np.empty((step * group, blocks * COLUMNS), dtype)
        mixed = np.empty((step * group, columns * COLUMNS), np.float32)
        totals = np.empty(step * group, np.float32)
        unit = _claim(table)
        while unit < segments * heads:
            segment, head = unit // heads, unit % heads
            count = 0  # of visible keys
            for piece in range(most_pieces):
                for row in range(pieces[segment, piece, 0], pieces[segment, piece, 1]):
                    to, given = key_blocks[count // COLUMNS, :, count % COLUMNS], keys[head, row]
                    for j in range(words):
                        to[j] = given[j]
                    for column in range(columns):
                        begin = column * COLUMNS
                        value = values[row, head, begin : begin + COLUMNS]
                        place = value_blocks[column, count // numbers, :, count % numbers]
                        for j in range(len(value)):
                            place[j] = value[j]
                    count += 1
            for padding in range(count, -(-count // COLUMNS) * COLUMNS):
                value_blocks[:, padding // numbers, :, padding % numbers] = 0
            begin, end = queries[segment, 0], queries[segment, 1]
            for first in range(begin, end, step):
                last = min(first + step, end)
                height = (last - first) * group
                x = query[head, first * group : last * group]
                most_visible = count - (end - last)
                steps = -(-most_visible // numbers)
                for block in range(-(-most_visible // COLUMNS)):
                    part = scores[:height, block * COLUMNS : (block + 1) * COLUMNS]
                    _block_product(x, key_blocks[block], words, part)
                for i in range(height):
                    visible = count - (end - 1 - first - i // group)
                    totals[i] = _exp_row(scores[i, :visible])
                    _write(scores[i, :visible], weights[i])
                    weights[i, visible : steps * numbers] = 0
                for column in range(columns):
                    part = mixed[:height, column * COLUMNS : (column + 1) * COLUMNS]
                    part_of_values = value_words[column, :steps]
                    _block_product(weights[:height], part_of_values, VALUES_CHUNK, part)
                for i in range(height):
                    for j in range(size):
                        mixed[i, j] /= totals[i]
                    _write(mixed[i, :size], out[first + i // group, head, i % group])
            unit = _claim(table)

    return kernel
