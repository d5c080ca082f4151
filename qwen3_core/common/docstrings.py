"""The descriptions of settings, each in one place, and decorators that put them into docstrings."""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

_MODEL: Final = (
    'Name on the Hugging Face Hub, local folder, or "tiny" for the bundled model. With `base_url`, '
    "the model's name on the server and the source of its tokenizer (see `Server` if the server "
    "uses another name)."
)

DESCRIPTIONS: Final[Mapping[str, str]] = {
    "model": _MODEL,
    "model_name": _MODEL,
    "base_url": (
        'Base URL of the API of a server that runs the model, such as "http://localhost:8000/v1". '
        "Without one, the model runs in this process."
    ),
    "api_key": (
        "The server's key. None: `QWEN3_API_KEY` from the environment, or for Alibaba Cloud "
        "`DASHSCOPE_API_KEY`; never `OPENAI_API_KEY`. Pickles and serialised components do not "
        "contain it."
    ),
    "server": (
        'The server\'s kind, such as "vllm", or a `Server` with more settings. None: detected.'
    ),
    "revision": (
        "Branch, tag or commit on the Hugging Face Hub; with `base_url`, of the tokenizer."
    ),
    "device": '"cpu", "cuda", "cuda:1" or "mps"; "auto" takes CUDA, else MPS, else the CPU.',
    "dtype": (
        '"bfloat16", "float32", "float16" or "int8"; "auto" is bfloat16 where the hardware '
        'supports it, else float32. "int8" computes the linear layers in 8-bit integers: faster '
        "and slightly less exact, on CPUs with VNNI instructions."
    ),
    "max_length": (
        "Tokens read of one input, prompt and instruction included, for a reranker also the query. "
        "Longer inputs are truncated with a warning. None: 8192, or the limit of the model, its "
        "checkpoint or the server if that is less."
    ),
    "dimensions": (
        "Length of the vectors, from 32 to the model's own (1024, 2560, 4096 for 0.6B, 4B, 8B). "
        "Shortened vectors are normalised again. None: the model's own."
    ),
    "instruction": (
        "The task of queries: a sentence, or a task name from `qwen3_core.prompts.TASKS`. None: "
        "the checkpoint's own prompt if the model runs in this process and has one, else "
        '"Given a web search query, retrieve relevant passages that answer the query".'
    ),
    "pack_tokens": (
        "Token budget of one forward pass; lower it if memory is short. None: by device."
    ),
    "timeout": (
        "Seconds until a call raises TimeoutError, including time in the queue and a server's "
        "retries, excluding loading of the model. None: no limit."
    ),
    "show_progress": "Show a progress bar on stderr.",
    "score_threshold": (
        "Results with a lower score, a probability from 0 to 1, are dropped after `top_n` is "
        "applied. A good value depends on model and task: look at the scores of your own data "
        "first. None: keep all."
    ),
    "score_metadata": (
        "Whether scores are written into the documents' metadata. Use False if other code compares "
        "documents by their serialised form."
    ),
    "uri": (
        'Path of a Milvus Lite file that ends in ".db" in an existing folder (`~` is the home '
        'folder); or "http://host:19530"; or the endpoint of a Zilliz Cloud cluster.'
    ),
    "token": '"user:password" or an API key, if the Milvus server requires one.',
    "db_name": "The database within Milvus, which must exist. None: the default one.",
    "collection_name": (
        "The collection, which the store creates if it does not exist: ASCII letters, digits and "
        "underscores; the first is not a digit."
    ),
    "metric": '"IP" (inner product) or "COSINE"; they are equal for vectors of length 1.',
    "rows": (
        "Approximate number of rows of a new collection, which determines its index. Milvus Lite: "
        "FLAT up to 10,000 or if None, IVF_FLAT beyond; both are exact. A server: FLAT up to "
        "10,000, IVF_FLAT up to 1 million or if None, HNSW up to 10 million, IVF_SQ8 beyond."
    ),
    "index_type": (
        'The index of a new collection, instead of that choice: "FLAT", "IVF_FLAT", "IVF_SQ8", '
        '"HNSW" or "HNSW_SQ"; on a server also "DISKANN", "IVF_RABITQ" or "AUTOINDEX". An existing '
        "collection with another index is refused: see `qwen3_core.milvus.rebuild_index`."
    ),
    "hybrid": (
        "Add full-text search (BM25; Milvus Lite, or a server of 2.5 or later), whose results are "
        "fused with those of the vector search by rank."
    ),
    "analyzer": (
        'How full-text search splits texts into words: "standard" (at spaces), "chinese" or '
        '"jieba"; on a server also "english" and "icu" (any language); or Milvus\'s own '
        "`analyzer_params`. An existing collection must have the same one. None: the collection's "
        'own; "standard" for a new one.'
    ),
}
"""Descriptions of the settings that several classes and functions share, by the setting's name."""

_BODY = r":\n((?:[ ]+.*\n|\n)*)"
_ARGS = re.compile(rf"^Args{_BODY}", re.MULTILINE)
_SECTION = re.compile(rf"^(?:Args|Attributes|Entries){_BODY}", re.MULTILINE)
_OTHERS = re.compile(r"^(?:Returns|Yields|Raises|Example):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\*{0,2}\w+): ((?:.*\n)(?:^(?:[ ]{5,}.*)?\n)*)", re.MULTILINE)


def described(target: Any) -> dict[str, str]:
    """The described parameters of a class or function, in order, each with its text on one line."""
    documented = [target.__doc__]
    if isinstance(target, type):
        documented.append(target.__init__.__doc__)  # type: ignore[misc]
    found = {}
    for docstring in documented:
        for section in _SECTION.findall(inspect.cleandoc(docstring or "") + "\n"):
            found.update({name: " ".join(text.split()) for name, text in _ENTRY.findall(section)})
    return found


def parameters_documented(*sources: Mapping[str, str] | Callable[..., Any]) -> Callable[[T], T]:
    """Decorator: adds the descriptions of parameters that a docstring lacks.

    They go to the section "Args:", in the order of the signature; of a class, in the docstring of
    its `__init__`.

    Args:
        *sources: Descriptions by parameter, or classes and functions that describe parameters of
            the same names; the first that has one is used. Default: `DESCRIPTIONS`.
    """

    def document(target: T) -> T:
        holder: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        texts: dict[str, str] = {}
        for source in reversed(sources or (DESCRIPTIONS,)):
            texts |= source if isinstance(source, Mapping) else described(source)
        texts |= described(holder)
        names = [
            {"VAR_KEYWORD": "**", "VAR_POSITIONAL": "*"}.get(parameter.kind.name, "") + name
            for name, parameter in inspect.signature(holder).parameters.items()
        ]
        _write(holder, {name: texts[name] for name in names if name in texts})
        return target

    return document


def fields_documented(component: T) -> T:
    """Class decorator for pydantic models: adds the fields' descriptions as an "Args:" section.

    The class's own fields come before inherited ones.
    """
    model: Any = component
    fields = model.model_fields
    own_first = dict.fromkeys(name for name in (*model.__annotations__, *fields) if name in fields)
    texts = {name: fields[name].description for name in own_first}
    _write(component, {name: " ".join(text.split()) for name, text in texts.items() if text})
    return component


def _write(holder: Any, texts: Mapping[str, str]) -> None:
    """Replace or add the section "Args:" of a docstring, before the other sections."""
    if not holder.__doc__:  # removed by `python -OO`
        return
    rest = _ARGS.sub("", inspect.cleandoc(holder.__doc__) + "\n")
    first = _OTHERS.search(rest)
    at = first.start() if first else len(rest)
    entries = "\n".join(
        textwrap.fill(
            f"{name}: {text}",
            96,
            initial_indent="    ",
            subsequent_indent="        ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in texts.items()
    )
    parts = (rest[:at].rstrip(), f"Args:\n{entries}", rest[at:].rstrip())
    holder.__doc__ = "\n\n".join(part for part in parts if part) + "\n"
