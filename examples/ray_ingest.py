r"""Index a corpus on many processes or machines with Ray Data: read, split, embed, store.

    python examples/ray_ingest.py --framework langchain --out shards --uri ./milvus.db
    python examples/ray_ingest.py --framework llama_index --out /mnt/shards --address auto \
        --model Qwen/Qwen3-Embedding-0.6B --workers 8 --gpus 1

Writes Parquet shards that Milvus bulk import takes, in the schema of the framework's own vector
store; with --uri it upserts them as well. A shard is named by what it is made of, so a second run
does only what is missing. Without --address, Ray runs in this process's machine.
On a cluster, --corpus and --out are on storage that all machines see.
"""

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _shards import LANGCHAIN, SCHEMAS, VECTOR_FIELD, digest, milvus_row, read_shard, write_shard

from qwen3_core.batch import Qwen3EmbedBatch
from qwen3_core.settings import TINY
from qwen3_retrieval.documents.corpus import SourceFile
from qwen3_retrieval.documents.cutting import CUTTING, Cutter, title_of, tokenizer_of
from qwen3_retrieval.documents.reading import read_sections
from qwen3_retrieval.documents.text import UnreadableError

BUNDLED_CORPUS = Path(__file__).resolve().parent / "corpus"

OBJECT_STORE = 256 << 20
"""Bytes of shared memory for local Ray; what passes through it is texts, vectors stay in shards."""


def main() -> None:
    options = read_options()
    out = Path(options.out).expanduser().resolve()
    out.mkdir(parents=True, exist_ok=True)
    folder, sources = find_files(options.corpus)
    groups = [
        {"folder": str(folder), "sources": sources[i : i + options.files_per_shard]}
        for i in range(0, len(sources), options.files_per_shard)
    ]
    done, failed, shards = 0, 0, []
    for result in embed_groups(groups, options, out):
        done += not result["skipped"]
        failed += len(result["errors"])
        for error in result["errors"]:
            print(f"left out: {error}", file=sys.stderr)
        if result["shard"]:
            shards.append(out / result["shard"])
    print(f"{done} shards written, {len(groups) - done} there already, {failed} passages left out")
    if options.uri:
        print(f"{upsert(sorted(shards), options)} rows in {options.collection!r}")
    sys.exit(1 if failed else 0)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--framework", choices=tuple(SCHEMAS), default=LANGCHAIN)
    add("--corpus", default=str(BUNDLED_CORPUS), help="folder of Markdown files (recursive)")
    add("--out", required=True, help="folder for the shards")
    add("--model", default=TINY, help="embedding model, as of the other examples")
    add("--base-url", help="server that runs the model")
    add("--dimensions", type=int)
    add("--workers", type=int, default=2, help="processes with a model each (default 2)")
    add("--cpus", type=float, default=1, help="CPUs of each (default 1)")
    add("--gpus", type=float, default=0, help="GPUs of each; 0.5 lets two share one (default 0)")
    add("--files-per-shard", type=int, default=64)
    add("--address", help='Ray cluster, such as "auto" or ray://host:10001; default: local')
    add("--uri", help="also upsert into this Milvus: path of a Milvus Lite file, or an address")
    add("--token", default=os.environ.get("MILVUS_TOKEN"))
    add("--collection", default="qwen3")
    return parser.parse_args()


def find_files(corpus: str) -> tuple[Path, list[str]]:
    """The corpus's folder, and its Markdown files by name."""
    folder = Path(corpus).expanduser().resolve()
    sources = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    if not sources:
        sys.exit(f"ray_ingest.py: --corpus {corpus}: there is no *.md file in this folder")
    return folder, sources


def start_ray(options: argparse.Namespace) -> None:
    """Join the cluster at --address, or start Ray on this machine, small enough for a laptop."""
    import ray

    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    local = {
        "address": "local",  # never one that happens to run, or to have run, on this machine
        "num_cpus": max(2, int(options.workers * options.cpus) + 1),
        "object_store_memory": OBJECT_STORE,
        "include_dashboard": False,
    }
    ray.init(
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}},
        log_to_driver=False,
        logging_level=logging.ERROR,
        **({"address": options.address} if options.address else local),
    )
    ray.data.DataContext.get_current().enable_progress_bars = False


def embed_groups(
    groups: list[dict[str, Any]], options: argparse.Namespace, out: Path
) -> Iterator[dict[str, Any]]:
    """Run read, split, embed and write; yields one result per group of files."""
    import ray

    job = {
        "framework": options.framework,
        "settings": {name: getattr(options, name) for name in ("model", "base_url", "dimensions")},
    }
    start_ray(options)
    try:
        yield from (
            ray.data.from_items(groups, override_num_blocks=len(groups))
            .map(read_and_split, fn_kwargs=job)  # type: ignore[arg-type]  # its types know no more
            .map(
                EmbedShard,  # type: ignore[arg-type]  # nor classes
                fn_constructor_kwargs=job | {"out": str(out)},
                # Ray starts a killed worker again, and its shard replaces the same file.
                compute=ray.data.ActorPoolStrategy(size=options.workers),
                num_cpus=options.cpus,
                num_gpus=options.gpus,
            )
            .iter_rows()
        )
    finally:
        ray.shutdown()


def read_and_split(
    group: dict[str, Any], framework: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """A group of files as one row: its shard's name, and lists of its passages."""
    passages, errors, content = {}, [], []
    cutter = Cutter(tokenizer_of(settings["model"], settings.get("base_url")))
    for source in group["sources"]:
        hasher = hashlib.sha256()
        file = SourceFile(Path(group["folder"]) / source, source, "markdown", 0)
        try:
            for section in read_sections(file, hasher, lambda *_: None):
                for piece in cutter.cut(section):
                    passages[digest(source, piece.text)] = (piece.text, source)
        except UnreadableError as error:
            errors.append(f"{source}: {error}")
        content += [source.encode(), hasher.digest()]
    return {
        "shard": digest(framework, CUTTING, repr(sorted(settings.items())), *content) + ".parquet",
        "ids": list(passages),
        "texts": [text for text, _ in passages.values()],
        "sources": [source for _, source in passages.values()],
        "errors": errors,
    }


class EmbedShard:
    """Embeds the passages of one group and writes its shard; one model per actor."""

    def __init__(self, framework: str, settings: dict[str, Any], out: str) -> None:
        self.framework = framework
        self.embed = Qwen3EmbedBatch(text_column="texts", **settings)
        self.out = Path(out)

    def __call__(self, group: dict[str, Any]) -> dict[str, Any]:
        """Write the shard of a row from `read_and_split`, unless it exists; return the result."""
        import pyarrow as pa
        import pyarrow.compute as pc

        path, errors = self.out / group["shard"], list(group["errors"])
        result = {"shard": path.name, "rows": 0, "skipped": path.exists(), "errors": errors}
        if result["skipped"]:
            return result
        names = ("ids", "texts", "sources")
        table = self.embed(pa.table({n: pa.array(list(group[n]), pa.string()) for n in names}))
        bad = table.filter(pc.is_valid(table["error"]))
        errors += [f"{row['sources']}: {row['error']}" for row in bad.to_pylist()]
        good = table.filter(pc.is_null(table["error"]))
        if not good.num_rows:
            return result | {"shard": ""}
        rows = [
            milvus_row(self.framework, key, text, {"source": source, "title": title_of(text)})
            for key, text, source in zip(*(good[n].to_pylist() for n in names), strict=True)
        ]
        write_shard(path, self.framework, rows, good["vector"])
        return result | {"rows": len(rows)}


def upsert(shards: list[Path], options: argparse.Namespace) -> int:
    """Write the shards into the collection, which the framework's own store creates.

    A single process writes, because only one can open a Milvus Lite file. A large server imports
    the shards faster through its bulk import.
    """
    client, count = None, 0
    for shard in shards:
        for rows in read_shard(shard):
            if client is None:
                client = open_collection(rows[0], options)
            client.upsert(options.collection, rows)
            count += len(rows)
    return count


def open_collection(first: dict[str, Any], options: argparse.Namespace) -> Any:
    """The client of the framework's store, once its collection exists."""
    settings = {"model": options.model, "base_url": options.base_url}
    settings["dimensions"] = len(first[VECTOR_FIELD[options.framework]])
    place = {"uri": options.uri, "token": options.token, "collection_name": options.collection}
    if options.framework == LANGCHAIN:
        import langchain_qwen3

        store = langchain_qwen3.open_milvus(langchain_qwen3.Qwen3Embeddings(**settings), **place)
        if not store.client.has_collection(options.collection):
            # This store makes its collection with the first row; the upsert writes it again.
            meta = {k: v for k, v in first.items() if k not in SCHEMAS[LANGCHAIN]}
            store.add_embeddings([first["text"]], [first["vector"]], [meta], ids=[first["pk"]])
        return store.client

    import llama_index_qwen3

    model = llama_index_qwen3.Qwen3Embedding(**settings)
    return llama_index_qwen3.open_milvus(model, **place, use_async_client=False).client


if __name__ == "__main__":
    main()
