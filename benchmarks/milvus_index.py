"""Recall, time and memory of Milvus indexes, and of coarse-to-fine search with short vectors.

    python benchmarks/milvus_index.py                          # 20,000 random vectors of 1024
    python benchmarks/milvus_index.py --texts lines.txt --short 64 --model tiny

By default it starts the server of `make milvus` in a temporary folder. The random vectors are
synthetic: groups of neighbours, with less and less variance from the first dimension to the last,
as Matryoshka training leaves it. Their times and bytes hold; measure recall on your own texts.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import describe
from qwen3_core.milvus.coarse import CoarseIndex
from qwen3_core.milvus.collection import CONSISTENCY
from qwen3_core.milvus.index import HNSW_PARAMS, IndexType, index_params, search_params

Vectors = npt.NDArray[np.float32]
Search = Callable[[Vectors], list[str]]

QUERIES = 200
TOP = (10, 100)
AT_ONCE = {"consistency_level": "Eventually"}
"""Else a search would wait for the server's next time tick, 200 ms, whatever the index."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", type=int, default=20_000, help="random vectors (default 20000)")
    add("--dimensions", type=int, default=1024, help="of the random vectors (default 1024)")
    add("--texts", type=Path, help="file of texts, one a line, in place of random vectors")
    add("--model", default="tiny", help="embeds the texts (default tiny)")
    add("--short", type=int, default=128, help="first dimensions for coarse search (default 128)")
    add(
        "--coarse", type=int, nargs="+", default=[200, 400, 800], help="candidates of coarse search"
    )
    add("--uri", help="a Milvus that runs; default: start the installed server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = None
        if not options.uri:
            from tests.milvus.server import MilvusServer

            server = MilvusServer(Path(folder))
            server.start()
            server.wait()
        try:
            measure(options, options.uri or server.uri)  # type: ignore[union-attr]
        finally:
            if server is not None:
                server.kill()


def measure(options: argparse.Namespace, uri: str) -> None:
    from pymilvus import MilvusClient

    vectors, queries = embedded(options) if options.texts else random_vectors(options)
    rows, dimensions = vectors.shape
    client = MilvusClient(uri)
    print(" | ".join(f"{name} {value}" for name, value in describe().items()))
    print(f"Milvus {client.get_server_version()}, {rows} vectors of {dimensions}, "
          f"{len(queries)} queries, k {TOP[-1]}\n")  # fmt: skip
    order = np.argsort(-(queries @ vectors.T), axis=1)[:, : TOP[-1]]
    truth = [[str(i) for i in row] for row in order]

    graph = 2 * HNSW_PARAMS["M"] * 4
    size: dict[str, float] = {"FLAT": 4 * dimensions, "IVF_SQ8": dimensions}
    size["HNSW"] = 4 * dimensions + graph
    print(f"| {'search':<34} | recall@10 | recall@100 | ms, median | ms, p95 | bytes a row |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    kinds: tuple[IndexType, ...] = ("HNSW", "IVF_SQ8", "FLAT")
    for kind in kinds:
        fill(client, kind, vectors)
        for k in (TOP[-1], 2 * TOP[-1]) if kind != "FLAT" else (TOP[-1],):
            search = search_params(k, "IP", kind)
            name = " ".join([kind, *(f"{key} {value}" for key, value in search["params"].items())])
            report(name, plain(client, kind, search), queries, truth, size[kind])
    coarse = CoarseIndex(uri, "FLAT", dimensions=options.short)
    start = time.perf_counter()
    coarse.update()
    settle(client, coarse.name, rows)
    made = time.perf_counter() - start
    short = 4 * options.short + graph
    name = f"HNSW, first {options.short}"
    cut = plain(client, coarse.name, search_params(TOP[-1]), options.short)
    report(name, cut, queries, truth, short)
    for k in options.coarse:
        report(f"{name}: {k}, then full", fine(client, coarse, k), queries, truth, short)
    print("\nBytes a row are those of the vectors and the graph that are searched first; the full "
          "vectors of the\nlast lines may lie on disk. The short vectors took "
          f"{made:.0f} s to read, cut, write and index.")  # fmt: skip
    for collection in (*kinds, coarse.name):
        client.drop_collection(collection)


def random_vectors(options: argparse.Namespace) -> tuple[Vectors, Vectors]:
    """Vectors in groups of 20, and queries beside some of them."""
    dice = np.random.default_rng(0)
    scale = 1 / np.sqrt(1 + np.arange(options.dimensions) / 32)

    def noise(count: int) -> Vectors:
        drawn = dice.standard_normal((count, options.dimensions), np.float32) * scale
        return drawn.astype(np.float32)

    centres = noise(options.rows // 20 + 1)
    vectors = centres.repeat(20, axis=0)[: options.rows] + noise(options.rows)
    queries = vectors[dice.choice(options.rows, QUERIES, replace=False)] + noise(QUERIES)
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


def fill(client: Any, kind: IndexType, vectors: Vectors) -> None:
    from pymilvus import DataType

    if client.has_collection(kind):
        client.drop_collection(kind)
    rows, dimensions = vectors.shape
    schema = client.create_schema(auto_id=False)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimensions)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", **index_params("IP", kind, rows=rows, dimensions=dimensions))
    client.create_collection(
        kind, schema=schema, index_params=indexes, consistency_level=CONSISTENCY
    )
    for start in range(0, rows, 1000):
        batch = vectors[start : start + 1000]
        client.insert(kind, [{"pk": str(start + i), "vector": v} for i, v in enumerate(batch)])
    settle(client, kind, rows)


def settle(client: Any, collection: str, rows: int) -> None:
    """Wait until a server has built the index, and load it in place of the fresh rows."""
    client.flush(collection)
    (name,) = client.list_indexes(collection)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        index = client.describe_index(collection, name)
        if index.get("indexed_rows", rows) >= rows and not index.get("pending_index_rows"):
            break
        time.sleep(0.5)
    client.release_collection(collection)
    client.load_collection(collection)


def plain(
    client: Any, collection: str, search: dict[str, Any], dimensions: int | None = None
) -> Search:
    def run(query: Vectors) -> list[str]:
        (hits,) = client.search(
            collection, [query[:dimensions]], limit=TOP[-1], search_params=search, **AT_ONCE
        )
        return [hit["id"] for hit in hits]

    return run


def fine(client: Any, coarse: CoarseIndex, k: int) -> Search:
    search = search_params(TOP[-1], "IP", "FLAT")

    def run(query: Vectors) -> list[str]:
        (hits,) = client.search(
            coarse.collection_name,
            [query],
            filter=coarse.expression(query, k),
            limit=TOP[-1],
            search_params=search,
            **AT_ONCE,
        )
        return [hit["id"] for hit in hits]

    return run


def report(
    name: str, search: Search, queries: Vectors, truth: list[list[str]], size: float
) -> None:
    for query in queries[:10]:
        search(query)
    seconds, recall = [], dict.fromkeys(TOP, 0.0)
    for query, expected in zip(queries, truth, strict=True):
        start = time.perf_counter()
        found = search(query)
        seconds.append(time.perf_counter() - start)
        for k in TOP:
            recall[k] += len(set(found[:k]) & set(expected[:k])) / k / len(queries)
    median, late = np.percentile(seconds, [50, 95]) * 1000
    print(f"| {name:<34} | {recall[10]:.3f} | {recall[100]:.3f} | {median:.1f} | {late:.1f} "
          f"| {size:,.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
