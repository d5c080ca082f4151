"""The demo fills its collections as `python -m qwen3_retrieval.ingest` does."""

import sys
from argparse import Namespace

from qwen3_retrieval.ingest.__main__ import main


def ingest(framework: str, options: Namespace, collection: str) -> None:
    """Bring a framework's collection up to date with the corpus; only what it lacks is embedded."""
    print(f"\n{framework}: ingest {options.corpus.name}")
    command = [
        *("--framework", framework, "--corpus", str(options.corpus), "--collection", collection),
        *("--uri", options.uri, "--model", options.model, "--dtype", options.dtype),
        *("--splitter", options.splitter),
        *(["--delete-missing"] if options.corpus.is_dir() else []),
        *(["--token", options.token] if options.token else []),
        *(["--base-url", options.base_url[0]] if options.base_url[0] else []),
    ]
    if main(command) not in (0, 3):  # 3: done, but a file was left out
        sys.exit(1)
