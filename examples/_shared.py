"""Helpers of the examples: command line, and errors on one line."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from qwen3_core.remote import ServerError
from qwen3_core.settings import (
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_RERANKER_MODEL,
    TINY,
    Dtype,
    matching_reranker,
)
from qwen3_retrieval.documents.cutting import Splitter

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / ".demo"
"""The examples' data folder: the Milvus Lite database and the downloaded corpus."""

BUNDLED_CORPUS = HERE / "corpus"
MILVUS_DOCS = "milvus-docs"
QUESTION = "How is data stored in Milvus?"


class UserError(Exception):
    """An error that the user can fix; the message says how."""


@dataclass(frozen=True)
class Settings:
    """The command line, checked."""

    corpus: str
    question: str | None
    instruction: str | None
    top_k: int
    top_n: int
    dimensions: int | None
    splitter: Splitter
    model: str
    reranker: str
    dtype: Dtype
    base_url: list[str]
    """Addresses of the servers that run the models; none: they run in this process."""
    uri: str
    token: str | None
    collection: str | None
    llm: str | None
    """Name of the OpenAI model that answers, or None without an OPENAI_API_KEY."""
    debug: bool

    @property
    def embedding_url(self) -> str | None:
        """Address of the server that embeds, if there is one."""
        return self.base_url[0] if self.base_url else None

    @property
    def reranker_url(self) -> str | None:
        """Address of the server that reranks, if there is one."""
        return self.base_url[-1] if self.base_url else None


def read_settings(description: str | None) -> Settings:
    """Parse the command line; a mistake in it ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        description=(description or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--question", help=f'what to ask; "{QUESTION}" unless you bring your own corpus')
    add(
        "--corpus",
        default=str(BUNDLED_CORPUS),
        metavar="PATH",
        help="folder, file or glob of Markdown (recursive), or "
        f'"{MILVUS_DOCS}", which downloads the FAQ of the Milvus tutorial; '
        "default: the FAQ that ships with the examples",
    )
    add(
        "--splitter",
        choices=get_args(Splitter),
        default="structure",
        help='"structure" (default): as the ingest cuts; "headers": at every "# ", as in the '
        'tutorial; "framework": by LangChain\'s or LlamaIndex\'s own splitters; "none": not at all',
    )
    add(
        "--model",
        default=TINY,
        help=f"embedding model: hub name such as {DEFAULT_EMBEDDING_MODEL}, folder, or "
        f'"{TINY}" (default), a bundled toy model that needs no download',
    )
    add(
        "--reranker",
        metavar="MODEL",
        help=f'reranking model; default "{TINY}" with --model {TINY}, else '
        f"{DEFAULT_RERANKER_MODEL}",
    )
    add(
        "--dtype",
        choices=get_args(Dtype),
        default="auto",
        help="what the models compute in; auto: bfloat16 where the hardware has it, else float32",
    )
    add(
        "--base-url",
        action="append",
        default=[],
        metavar="URL",
        help="server that runs the models, such as http://localhost:8000/v1 ($QWEN3_API_KEY is its "
        "key); once if it runs both, twice for the embedding server and the reranker's",
    )
    add("--instruction", help="task name or sentence that tells both models what to look for")
    add("--dimensions", type=_count, metavar="N", help="length of the vectors, 32 to the model's")
    add("--top-k", type=_count, default=10, metavar="K", help="candidates to retrieve (default 10)")
    add("--top-n", type=_count, default=3, metavar="N", help="passages to keep (default 3)")
    add(
        "--uri",
        default=str(KEPT / "milvus.db"),
        help="Milvus Lite file (default: .demo/milvus.db beside the examples), "
        "http://host:19530, or a Zilliz Cloud endpoint",
    )
    add(
        "--token",
        default=os.environ.get("MILVUS_TOKEN"),
        help='"user:password" or API key of the Milvus server; default: $MILVUS_TOKEN',
    )
    add(
        "--collection",
        metavar="NAME",
        help="Milvus collection; default: one for each framework, corpus and model",
    )
    add(
        "--llm",
        metavar="MODEL",
        help="OpenAI model that answers, given OPENAI_API_KEY (and OPENAI_BASE_URL for another "
        "server); default: $OPENAI_MODEL or gpt-5-mini",
    )
    add("--debug", action="store_true", help="show warnings, logs and the traceback of an error")
    options = parser.parse_args()

    if len(options.base_url) > 2:
        parser.error("--base-url can be given twice: the embedding server, then the reranker's")
    if options.top_n > options.top_k:
        parser.error(f"--top-n {options.top_n} is more than --top-k {options.top_k}")
    if options.question is not None and not options.question.strip():
        parser.error("--question is blank")
    if options.question is None and options.corpus not in (str(BUNDLED_CORPUS), MILVUS_DOCS):
        parser.error("--corpus is your own: give a --question too")
    if options.llm and not os.environ.get("OPENAI_API_KEY"):
        parser.error("--llm needs the environment variable OPENAI_API_KEY (any value will do for a "
                     "server without keys at OPENAI_BASE_URL)")  # fmt: skip
    if os.environ.get("OPENAI_API_KEY"):
        options.llm = options.llm or os.environ.get("OPENAI_MODEL") or "gpt-5-mini"
    options.reranker = options.reranker or matching_reranker(options.model)
    if "://" not in options.uri:
        path = Path(options.uri).expanduser()
        if path.suffix != ".db":
            parser.error(f"--uri {options.uri}: a Milvus Lite file has to end in .db, a server's "
                         "address starts with http:// or https://")  # fmt: skip
        options.uri = str(path)
    return Settings(**vars(options))


def kept_folder() -> Path:
    """The folder for what the examples keep, made if need be and hidden from git."""
    KEPT.mkdir(exist_ok=True)
    (KEPT / ".gitignore").write_text("*\n", encoding="utf-8")
    return KEPT


def run(main: Callable[[Settings], None], description: str | None) -> None:
    """Run an example; errors that the user can fix become one line on stderr and exit code 1."""
    settings = read_settings(description)
    if settings.model == settings.reranker == TINY:
        # Too small to gain from more threads, which slow each other down on a busy machine.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not settings.debug:
        import pymilvus  # noqa: F401 - now, because it sets the levels of its loggers

        # These libraries log each error with a traceback before they raise it.
        for name in ("pymilvus", "milvus_lite", "grpc", "faiss"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        if settings.uri == str(KEPT / "milvus.db"):
            kept_folder()
        main(settings)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = _explain(error, settings)
        if settings.debug or message is None:
            raise
        print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(1)


def _explain(error: Exception, settings: Settings) -> str | None:
    """The message for the user; None for an error that is a bug."""
    # By name, because which of these libraries are loaded depends on the example.
    libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if "pymilvus" in libraries:
        reason = getattr(error, "message", str(error))
        if "://" in settings.uri:
            return f"Milvus at {settings.uri}: {reason}"
        hint = "is another program using it? It serves one process at a time"
        hint = f" ({hint})" if "Open local milvus failed" in reason else ""
        return f"Milvus Lite, {settings.uri}: {reason}{hint}"
    if "openai" in libraries:
        base = os.environ.get("OPENAI_BASE_URL") or "api.openai.com"
        return f"the LLM {settings.llm!r} at {base} did not answer: {error}"
    if isinstance(error, ValidationError):
        return "; ".join(detail["msg"] for detail in error.errors())
    if isinstance(error, ImportError):
        return f"{error}: `make demo` installs what the examples need, in .venv"
    if isinstance(error, (UserError, ServerError, ValueError, OSError)):
        return str(error) or type(error).__name__
    return None


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"must be at least 1, not {number}"
        raise argparse.ArgumentTypeError(message)
    return number
