"""Memory that is short: the pack is split and computed, nothing is lost, one sequence may fail."""

import logging
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qwen3_core import Embedder, Reranker
from qwen3_core.model.packing import TokenSequence, Work
from tests.conftest import ROOT, TINY

DOCUMENTS = [f"Milvus fact number {i}: segments are sealed and flushed. " * 3 for i in range(40)]


@pytest.fixture
def folder(tmp_path):
    """The bundled pair under a name of its own, so that its engine is not shared."""
    (tmp_path / "pair").symlink_to(TINY)
    return tmp_path / "pair"


@pytest.fixture
def short(monkeypatch):
    """Makes an encoder's forward pass fail above so many tokens; returns the sizes it was given."""

    def shorten(component, most, error):
        encoder, sizes = component.engine.encoder, []
        run = encoder.run

        def limited(pack):
            sizes.append(len(pack.ids))
            if len(pack.ids) > most:
                raise error
            return run(pack)

        monkeypatch.setattr(encoder, "run", limited)
        return sizes

    return shorten


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the docs"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
)
def test_a_pack_is_split_until_it_fits(folder, short, error, caplog):
    embedder = Embedder(folder / "embedding", dtype="float32")
    expected = embedder.embed_documents(DOCUMENTS)
    sizes = short(embedder, 150, error)
    with caplog.at_level(logging.WARNING, logger="qwen3_core.engine.worker"):
        vectors = embedder.embed_documents(DOCUMENTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert "not enough memory for a pack of" in caplog.text
    # The smaller budget is remembered: from the first pack that fits on, none is too large.
    fits = next(i for i, size in enumerate(sizes) if size <= 150)
    assert fits > 0
    assert all(size <= 150 for size in sizes[fits:])
    assert embedder.stats().pack_tokens <= 150
    before = len(sizes)
    np.testing.assert_allclose(embedder.embed_documents(DOCUMENTS), expected, atol=1e-5)
    assert all(size <= 150 for size in sizes[before:])


def test_documents_of_a_query_are_split_too(folder, short):
    reranker = Reranker(folder / "reranker", dtype="float32")
    expected = reranker.score(DOCUMENTS, "What is flushed?")
    short(reranker, 300, MemoryError())
    np.testing.assert_allclose(
        reranker.score(DOCUMENTS, "What is flushed?"), expected, rtol=1e-5, atol=1e-5
    )


def test_one_sequence_that_does_not_fit_names_its_tokens_and_fails_alone(folder, short):
    embedder = Embedder(folder / "embedding", dtype="float32")
    expected = embedder.embed_documents(DOCUMENTS)
    short(embedder, 150, torch.OutOfMemoryError("Tried to allocate 2.00 GiB.\nSee the docs"))
    with pytest.raises(MemoryError, match=r"one sequence of \d{3} tokens \(Tried to allocate"):
        embedder.embed_documents([*DOCUMENTS, "word " * 400])
    np.testing.assert_allclose(embedder.embed_documents(DOCUMENTS), expected, atol=1e-5)


def test_other_errors_are_not_taken_for_it(folder, short):
    embedder = Embedder(folder / "embedding", dtype="float32")
    sizes = short(embedder, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        embedder.embed_documents(DOCUMENTS)
    assert len(sizes) == 1


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_memory_that_is_really_short():
    """A process that may allocate little more than it has embeds many long texts all the same."""
    code = """
        import logging, resource, sys
        import numpy as np
        from qwen3_core import Embedder

        texts = [f"{i} " + "a long text of many words " * 300 for i in range(24)]
        roomy = Embedder("tiny", dtype="float32", pack_tokens=2048)
        expected = roomy.embed_documents(texts)
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + 48 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        found = Embedder("tiny", dtype="float32", pack_tokens=10**9).embed_documents(texts)
        print(np.abs(found - expected).max() < 1e-5)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert "tiny: not enough memory for a pack of" in done.stdout, done.stderr[-2000:]
    assert done.stdout.endswith("True\n")


def test_texts_of_all_lengths_make_products_of_few_shapes(folder):
    """Each new shape costs time and, in oneDNN's store of programs, about a megabyte."""
    shapes = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if any(product in func.name() for product in ("bmm", "mm", "linear")):
                tensors = (x.shape for x in args if isinstance(x, torch.Tensor))
                shapes.add((func.name(), *tensors))
            return func(*args, **kwargs or {})

    encoder = Embedder(folder / "embedding").engine.encoder
    prefix = tuple(range(40))
    for length in range(1, 400, 5):
        own = tuple(range(100, 100 + length))
        for sequences in (
            [TokenSequence((), own)],
            [TokenSequence(prefix, own)] * (length % 7 + 1),
        ):
            pack = encoder.next_pack([([Work(sequences)], 4096)])
            with Record():
                encoder.run(pack)
    assert 50 < len(shapes) < 512  # half of what the store holds
