"""Recall, time and memory of Milvus indexes, on Milvus Lite and on a server.

    python benchmarks/milvus_index.py                          # 20,000 random vectors of 1024
    python benchmarks/milvus_index.py --lite --rows 100000     # on Milvus Lite
    python benchmarks/milvus_index.py --texts lines.txt --model tiny
    python benchmarks/milvus_index.py --lite --equal           # many equal and nearly equal texts

The server is that of `make milvus`, started in a temporary folder, unless `--uri` names one. Milvus
Lite is closed and opened again before it is searched: within the process that wrote the rows it
compares them one by one. The random vectors are synthetic: groups of neighbours, with less and less
variance from the first dimension to the last, as Matryoshka training leaves it. Their times and
bytes hold; measure recall on your own texts.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.machine import describe
from qwen3_core.milvus import rebuild_index
from qwen3_core.milvus.collection import CONSISTENCY
from qwen3_core.milvus.index import IndexType, index_params, is_lite, search_params

Vectors = npt.NDArray[np.float32]

QUERIES = 200
K = 50
NAME = "benchmark"
LITE: tuple[IndexType, ...] = ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "HNSW_SQ")
SERVER: tuple[IndexType, ...] = ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "AUTOINDEX")
AT_ONCE = {"consistency_level": "Eventually"}
"""Otherwise a search waits for the server's next time tick, 200 ms, with any index."""
BLANK = "Page intentionally left blank."
CORPUS = Path(__file__).parent.parent / "examples" / "corpus"


class Case(NamedTuple):
    """Vectors in a collection, of which the first `boilerplate` are those of equal texts."""

    name: str
    vectors: Vectors
    queries: Vectors
    boilerplate: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--lite", action="store_true", help="measure Milvus Lite in place of a server")
    add("--rows", type=int, nargs="+", default=[20_000], help="random vectors (default 20000)")
    add("--dimensions", type=int, default=1024, help="of the random vectors (default 1024)")
    add("--texts", type=Path, help="file of texts, one a line, in place of random vectors")
    add("--equal", action="store_true", help="lines of examples/corpus beside equal ones")
    add("--copies", type=int, default=1, help="lines of each line with --equal (default 1)")
    add("--model", default="tiny", help="embeds the texts (default tiny)")
    add("--index-type", nargs="+", help="index types to measure")
    add("--uri", help="a Milvus that runs; default: start the installed server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = None
        uri = str(Path(folder) / "milvus.db") if options.lite else options.uri
        if not uri:
            from tests.milvus.server import MilvusServer

            server = MilvusServer(Path(folder))
            server.start()
            server.wait()
            uri = server.uri
        try:
            measure(options, uri)
        finally:
            if server is not None:
                server.kill()


def measure(options: argparse.Namespace, uri: str) -> None:
    from pymilvus import MilvusClient

    client = MilvusClient(uri)
    print(" | ".join(f"{name} {value}" for name, value in describe().items()))
    print(f"Milvus {'Lite ' if options.lite else ''}{client.get_server_version()}, k {K}\n")
    print("| vectors | index | build, s | load, s | recall@10 | recall@50 | ms, median | ms, p95 "
          "| recall@10 after deletes |")  # fmt: skip
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in cases(options):
        for i, kind in enumerate(options.index_type or (LITE if options.lite else SERVER)):
            if i == 0 or case.boilerplate:  # which the last index's turn deleted
                client = fill(client, uri, case.vectors)
            start = time.perf_counter()
            try:
                rebuild_index(uri, NAME, index_type=kind)
            except Exception as error:  # noqa: BLE001 - an old server lacks some
                print(f"| {case.name} | {kind} | {str(error)[:90]} |", flush=True)
                continue
            settle(client, len(case.vectors))
            built = time.perf_counter() - start
            client = reopen(client, uri)
            start = time.perf_counter()
            client.load_collection(NAME)
            loaded = time.perf_counter() - start
            deleted = ""
            found, times = search(client, kind, case.queries)
            recalls = [recall(case, found, k, 0) for k in (10, K)]
            if case.boilerplate:
                for first in range(0, case.boilerplate, 500):
                    last = min(first + 500, case.boilerplate)
                    client.delete(NAME, ids=list(range(first, last)))
                time.sleep(1)
                after, _ = search(client, kind, case.queries)
                deleted = f"{recall(case, after, 10, case.boilerplate):.3f}"
            median, late = np.percentile(times, [50, 95]) * 1000
            print(f"| {case.name} | {kind} | {built:.1f} | {loaded:.1f} | {recalls[0]:.3f} "
                  f"| {recalls[1]:.3f} | {median:.1f} | {late:.1f} | {deleted} |",
                  flush=True)  # fmt: skip
    client.drop_collection(NAME)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    if options.equal:
        yield from beside_equal_texts(options)
    elif options.texts:
        vectors, queries = embedded(options)
        yield Case(f"{len(vectors)} of {vectors.shape[1]}", vectors, queries)
    else:
        for rows in options.rows:
            vectors, queries = random_vectors(rows, options.dimensions)
            yield Case(f"{rows} of {options.dimensions}", vectors, queries)


def beside_equal_texts(options: argparse.Namespace) -> Iterator[Case]:
    from qwen3_core import Embedder

    embedder = Embedder(options.model)
    lines = sorted(
        {line.strip() for file in CORPUS.glob("*.md") for line in file.read_text().splitlines()}
    )
    lines = [line for line in lines if len(line) > 40]
    copies = range(options.copies)
    others = [line + (f" ({i})" if i else "") for i in copies for line in lines]
    vectors, queries = embedder.embed_documents(others), embedder.embed_queries(lines[:100])
    blank = embedder.embed_documents([BLANK])
    for count in (0, 60, 300, 2000):
        name = f"{len(others)} + {count} equal"
        yield Case(name, np.concatenate([blank.repeat(count, 0), vectors]), queries, count)
    near = embedder.embed_documents([f"Page {i} intentionally left blank." for i in range(2000)])
    name = f"{len(others)} + {len(near)} nearly equal"
    yield Case(name, np.concatenate([near, vectors]), queries, len(near))


def random_vectors(rows: int, dimensions: int) -> tuple[Vectors, Vectors]:
    """Vectors in groups of 20, and queries beside some of them."""
    dice = np.random.default_rng(0)
    scale = 1 / np.sqrt(1 + np.arange(dimensions) / 32)

    def noise(count: int) -> Vectors:
        drawn = dice.standard_normal((count, dimensions), np.float32) * scale
        return drawn.astype(np.float32)

    centres = noise(rows // 20 + 1)
    vectors = centres.repeat(20, axis=0)[:rows] + noise(rows)
    queries = vectors[dice.choice(rows, QUERIES, replace=False)] + noise(QUERIES)
    return normalized(vectors), normalized(queries)


def embedded(options: argparse.Namespace) -> tuple[Vectors, Vectors]:
    """Distinct texts, some of which are held back and embedded as queries."""
    from qwen3_core import Embedder

    texts = sorted({line.strip() for line in options.texts.open(encoding="utf-8")} - {""})
    np.random.default_rng(0).shuffle(texts)
    embedder = Embedder(options.model)
    queries = embedder.embed_queries(texts[:QUERIES])
    return embedder.embed_documents(texts[QUERIES:]), queries


def normalized(vectors: Vectors) -> Vectors:
    length: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / length


def fill(client: Any, uri: str, vectors: Vectors) -> Any:
    """Fill a new collection and flush it."""
    from pymilvus import DataType

    rows, dimensions = vectors.shape
    if client.has_collection(NAME):
        client.drop_collection(NAME)
    schema = client.create_schema(auto_id=False)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimensions)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", **index_params("IP", "FLAT"))
    client.create_collection(
        NAME, schema=schema, index_params=indexes, consistency_level=CONSISTENCY
    )
    for start in range(0, rows, 1000):
        batch = vectors[start : start + 1000]
        client.insert(NAME, [{"pk": start + i, "vector": v} for i, v in enumerate(batch)])
    client.flush(NAME)
    settle(client, rows)
    return reopen(client, uri)


def reopen(client: Any, uri: str) -> Any:
    """Release memory: close Milvus Lite, or unload the server's collection."""
    from pymilvus import MilvusClient

    client.release_collection(NAME)
    if not is_lite(uri):
        return client
    from milvus_lite.server_manager import server_manager_instance

    client.close()
    server_manager_instance.release_server(uri)
    return MilvusClient(uri)


def settle(client: Any, rows: int) -> None:
    """Wait until a server has built the index."""
    (name,) = client.list_indexes(NAME)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        index = client.describe_index(NAME, name)
        if index.get("indexed_rows", rows) >= rows and not index.get("pending_index_rows"):
            return
        time.sleep(0.5)


def search(client: Any, kind: str, queries: Vectors) -> tuple[list[list[int]], Sequence[float]]:
    asked = search_params(K, "IP", kind)
    found, seconds = [], []
    for i, query in enumerate([*queries[:5], *queries]):
        start = time.perf_counter()
        (hits,) = client.search(NAME, [query], limit=K, search_params=asked, **AT_ONCE)
        if i >= 5:
            seconds.append(time.perf_counter() - start)
            found.append([hit.get("pk", hit.get("id")) for hit in hits])
    return found, seconds


def recall(case: Case, found: list[list[int]], k: int, first: int) -> float:
    """The share of hits that score no less than the exact search's last; equal texts tie."""
    share = 0.0
    for query, hits in zip(case.queries, found, strict=True):
        scores = case.vectors @ query
        least = np.sort(scores[first:])[-k] - 1e-5
        share += sum(scores[hit] >= least and hit >= first for hit in hits[:k]) / k
    return share / len(found)


if __name__ == "__main__":
    main()
