"""What an ingest asks of a framework: its splitters, and rows in its own vector store."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Final, Protocol

from qwen3_core.common.extras import how_to_install
from qwen3_core.tokenizer import Ids
from qwen3_retrieval.ingest.chunks import Chunk, split_at_headings
from qwen3_retrieval.ingest.reading import Section
from qwen3_retrieval.ingest.settings import Settings, Splitter

Encode = Callable[[str], Ids]
"""Token ids of a text."""


class Framework(Protocol):
    """The thin part that differs between LangChain and LlamaIndex."""

    id_field: ClassVar[str]
    """Name of the primary key in the collections that its vector store creates."""
    splitter_packages: ClassVar[tuple[str, ...]]
    """Distributions whose release decides where a text is cut."""

    def __init__(self, settings: Settings, encode: Encode) -> None: ...

    def split_at_headings(self, text: str) -> list[tuple[str, list[str]]]:
        """A Markdown text in parts, each with its headings: the outermost first, its own last."""

    def split_to_size(self, text: str) -> list[str]:
        """A text in pieces of at most `chunk_size` tokens where it can be cut so."""

    def check(self) -> None:
        """Raise ValueError if the collection exists but does not fit; creates nothing."""

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Embed chunks and write their rows; one whose id is there already is replaced.

        The first call loads the model, and then opens the vector store.
        """


FRAMEWORKS: Final = {
    "langchain": ("langchain_milvus", "qwen3_retrieval.ingest._langchain"),
    "llama-index": ("llama_index.vector_stores.milvus", "qwen3_retrieval.ingest._llama_index"),
}
"""The framework's Milvus store, which shows that it is there to be used (text splitters bring
langchain-core to LlamaIndex's users too), and where our part is."""


def load_framework(name: str | None, settings: Settings, encode: Encode) -> Framework:
    """The framework of this name, or the first that is installed.

    Raises:
        ImportError: If it, or a package that it needs, is not installed.
    """
    name = name or first_installed()
    try:
        module = import_module(FRAMEWORKS[name][1])
    except ModuleNotFoundError as error:
        extra = how_to_install(f"{name},ingest")
        msg = f"--framework {name} needs {error.name}, which is not installed: {extra}"
        raise ImportError(msg) from error
    framework: Framework = module.IngestFramework(settings, encode)
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


MAX_TITLE: Final = 200
"""Characters that are kept of a title."""

TITLES: Final = "titles are heading paths"
"""Names what `split` makes of headings; another name lets the next run read all files again."""


def split(
    framework: Framework, section: Section, splitter: Splitter
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pieces of a section, each with its metadata: its headings are its title."""
    for piece, headings in _pieces(framework, section, splitter):
        metadata = dict(section.metadata)
        if title := heading_path(headings):
            metadata["title"] = title
        if isinstance(metadata.get("title"), str):
            metadata["title"] = metadata["title"][:MAX_TITLE]
        yield piece, metadata


def heading_path(headings: Sequence[str]) -> str:
    """A place as a citation tells it, "Install > Docker"; where it is long, less of its begin."""
    named = [name for heading in headings if (name := heading.strip(" \t#"))]
    while len(named) > 1 and len(" > ".join(named)) > MAX_TITLE:
        del named[0]
    return " > ".join(named)


def _pieces(
    framework: Framework, section: Section, splitter: Splitter
) -> Iterator[tuple[str, list[str]]]:
    if splitter == "none":
        yield section.text, []
    elif not section.markdown:
        for piece in framework.split_to_size(section.text):
            yield piece, []
    elif splitter == "headers":
        for part in split_at_headings(section.text):
            yield part, [part.strip().partition("\n")[0]]
    else:
        for part, headings in framework.split_at_headings(section.text):
            for piece in framework.split_to_size(part):
                yield piece, headings


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
