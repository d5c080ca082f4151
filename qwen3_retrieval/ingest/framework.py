"""The interface of the ingest to a framework: its vector store and its splitters."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar, Final, Protocol

from qwen3_core.common.extras import how_to_install
from qwen3_retrieval.documents.cutting import FrameworkSplitters, LoadTokenizer
from qwen3_retrieval.ingest.chunks import Chunk
from qwen3_retrieval.ingest.settings import IngestSettings


class Framework(Protocol):
    """The thin part that differs between LangChain and LlamaIndex."""

    id_field: ClassVar[str]
    """Name of the primary key in the collections that its vector store creates."""
    splitter_package: ClassVar[str]
    """Distribution of its splitters; its release determines the cuts."""

    def __init__(self, settings: IngestSettings) -> None: ...

    def splitters(self, tokenizer: LoadTokenizer) -> FrameworkSplitters:
        """Its own splitters; raises ImportError if they are not installed."""

    def check(self) -> None:
        """Raise ValueError if the collection exists but does not match; creates nothing."""

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Embed chunks and write their rows; rows with existing ids are replaced.

        The first call loads the model, and then opens the vector store.
        """


FRAMEWORKS: Final = {
    "langchain": ("langchain_milvus", "qwen3_retrieval.ingest._langchain"),
    "llama-index": ("llama_index.vector_stores.milvus", "qwen3_retrieval.ingest._llama_index"),
}
"""Each framework's Milvus store and our adapter. The store shows that the framework is in use:
LlamaIndex's users may have langchain-core through other packages."""


def load_framework(name: str | None, settings: IngestSettings) -> Framework:
    """The framework of this name, or the first that is installed.

    Raises:
        ImportError: If it or a package that it needs is not installed.
    """
    name = name or first_installed()
    try:
        module = import_module(FRAMEWORKS[name][1])
    except ModuleNotFoundError as error:
        extra = how_to_install(f"{name},ingest")
        msg = f"--framework {name} needs {error.name}, which is not installed: {extra}"
        raise ImportError(msg) from error
    framework: Framework = module.IngestFramework(settings)
    return framework


def first_installed() -> str:
    """The first framework whose Milvus store is installed.

    Raises:
        ImportError: If none is.
    """
    for name, (package, _) in FRAMEWORKS.items():
        if _installed(package):
            return name
    msg = (
        "neither LangChain nor LlamaIndex is installed with its Milvus store: run `pip install "
        '"qwen3-retrieval[langchain,ingest]"` or "qwen3-retrieval[llama-index,ingest]"'
    )
    raise ImportError(msg)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
