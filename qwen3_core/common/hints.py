"""What to say of an argument or a component that is not ours, but belongs to something near."""

from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Carried(NamedTuple):
    """What an argument of another wrapper is here."""

    ours: str | None
    """Our argument, if there is one."""

    note: str = ""
    """What else there is to know."""

    def __str__(self) -> str:
        """The line in an error and in docs/howto/migration.md."""
        return "; ".join(part for part in (f"{self.ours}=" if self.ours else "", self.note) if part)


ALWAYS: Final = Carried(None, "not needed: vectors always have length 1")
PACKS: Final = Carried(
    None, "not needed: forward passes are filled by tokens; pack_tokens= bounds them"
)
FRAME: Final = Carried("instruction", 'the sentence alone, without "Instruct:" and "Query:"')
ONE_BY_ONE: Final = Carried(
    None, "not needed: device=, dtype=, dimensions=, revision= stand by themselves"
)
DOCUMENTS: Final = Carried(None, "not possible: these models read documents without an instruction")
ONE_PROCESS: Final = Carried(
    None, "not needed: one process serves all callers; for GPUs see docs/scale.md"
)
TOKENS: Final = Carried("max_length", "in tokens, instruction and query included")

CARRIED_OVER: Final[dict[str, Carried]] = {
    "query_instruction": FRAME,
    "query_instruction_for_retrieval": FRAME,
    "embed_instruction": DOCUMENTS,
    "text_instruction": DOCUMENTS,
    "document_instruction": DOCUMENTS,
    "passage_instruction": DOCUMENTS,
    "prompt": FRAME,
    "prompts": FRAME,
    "prompt_name": Carried("instruction", "a task's name or a sentence; queries always get it"),
    "default_prompt_name": Carried(
        "instruction", "a task's name or a sentence; queries always get it"
    ),
    "query_encode_kwargs": FRAME,
    "encode_kwargs": Carried(
        None, "not needed: vectors have length 1, and passes are filled by tokens"
    ),
    "model_kwargs": ONE_BY_ONE,
    "config_kwargs": ONE_BY_ONE,
    "cross_encoder_kwargs": Carried("max_length", "and device=, dtype=; only the document is cut"),
    "tokenizer_kwargs": Carried("max_length", "only the document is cut"),
    "torch_dtype": Carried("dtype"),
    "use_fp16": Carried("dtype", '"float16"; "auto" takes what the hardware has'),
    "truncate_dim": Carried("dimensions", "vectors get length 1 again after the cut"),
    "matryoshka_dim": Carried("dimensions", "vectors get length 1 again after the cut"),
    "normalize": ALWAYS,
    "normalize_embeddings": ALWAYS,
    "similarity_fn_name": Carried(None, "not needed: inner product and cosine are equal here"),
    "pooling": Carried(None, "not needed: these models are read at the last token"),
    "max_seq_length": TOKENS,
    "max_tokens_per_doc": TOKENS,
    "batch_size": PACKS,
    "embed_batch_size": PACKS,
    "chunk_size": PACKS,
    "threshold": Carried("score_threshold", "a probability from 0 to 1"),
    "min_score": Carried("score_threshold", "a probability from 0 to 1"),
    "similarity_cutoff": Carried("score_threshold", "a probability from 0 to 1"),
    "cache_folder": Carried(None, "the environment variable HF_HOME"),
    "cache_dir": Carried(None, "the environment variable HF_HOME"),
    "token": Carried(None, "the environment variable HF_TOKEN"),
    "use_auth_token": Carried(None, "the environment variable HF_TOKEN"),
    "local_files_only": Carried(None, "the environment variable HF_HUB_OFFLINE=1"),
    "trust_remote_code": Carried(None, "not needed: a checkpoint's code is never run"),
    "backend": Carried(None, "not needed: the model runs on torch, or on a server with base_url="),
    "multi_process": ONE_PROCESS,
    "parallel_process": ONE_PROCESS,
    "target_devices": ONE_PROCESS,
    "show_progress_bar": Carried("show_progress"),
    "cohere_api_key": Carried("api_key", "with base_url= for a server; else the model runs here"),
    "voyage_api_key": Carried("api_key", "with base_url= for a server; else the model runs here"),
    "jina_api_key": Carried("api_key", "with base_url= for a server; else the model runs here"),
}
"""Arguments of the classes that people come from. docs/howto/migration.md shows this table."""

CLASSES: Final = {
    "langchain_qwen3": {
        "Qwen3Embedding": "Qwen3Embeddings",
        "Qwen3Rerank": "Qwen3Reranker",
        "two_stage_query_engine": "Qwen3TwoStageRetriever and create_rag_chain",
        "CitedPassages": "create_rag_chain",
    },
    "llama_index_qwen3": {
        "Qwen3Embeddings": "Qwen3Embedding",
        "Qwen3Reranker": "Qwen3Rerank",
        "Qwen3CrossEncoder": "Qwen3Rerank",
        "create_rag_chain": "two_stage_query_engine",
    },
}
"""By package: a name of the other framework's package, and what it is here."""


def check_class(package: str, name: str) -> None:
    """Refuse a name that belongs to the other framework's package.

    Raises:
        ImportError: That says what it is here. Python would replace an AttributeError's words.
    """
    if here := CLASSES[package].get(name):
        other = next(p for p in CLASSES if p != package)
        msg = f"{package} has no {name}: use {here} here; {name} is in {other}"
        raise ImportError(msg)


def by_name(kind: type, given: tuple[object, ...], first: str) -> None:
    """Refuse positional arguments.

    Args:
        kind: The component's class.
        given: Positional arguments; never shown, since one may be a key.
        first: How the arguments are named, such as `model=...`.

    Raises:
        TypeError: That shows how to name them.
    """
    if given:
        msg = f"{kind.__name__} takes arguments by name: write {kind.__name__}({first})"
        raise TypeError(msg)


def one_model(given: object, field: str) -> Any:
    """Arguments in which `model` and `model_name`, which are one setting, have the field's name.

    Args:
        given: Arguments by name; anything else is returned as it is.
        field: The field's name, "model" or "model_name".

    Raises:
        ValueError: If they differ.
    """
    other = "model_name" if field == "model" else "model"
    if not isinstance(given, Mapping) or other not in given:
        return given
    if field in given and str(given[field]) != str(given[other]):
        both = f"model={given['model']!r:.80} and model_name={given['model_name']!r:.80}"
        msg = f"{both} differ: they are one setting, give one"
        raise ValueError(msg)
    return {**{name: value for name, value in given.items() if name != other}, field: given[other]}


FRAMEWORKS: Final = {"langchain": "LangChain", "llama_index": "LlamaIndex"}
"""How the names of packages begin, and whose they are."""


def misplaced(
    name: str,
    value: object,
    kind: type | tuple[type, ...],
    wanted: str,
    hints: Mapping[Any, str] | None = None,
) -> str | None:
    """What to say of something that is no component of the kind that an argument takes.

    Args:
        name: The argument's.
        value: What was given; never shown, since it may be a key.
        kind: The right class, or classes.
        wanted: How to call the right kind, such as "a Qwen3Reranker".
        hints: By class of a mistake, what to do instead.

    Returns:
        None if it is of the right kind.
    """
    if isinstance(value, kind):
        return None
    hint = next((hint for other, hint in (hints or {}).items() if isinstance(value, other)), "")
    given = type(value)
    if isinstance(value, type):
        given, hint = value, f"the class itself: write {value.__name__}(...)"
    theirs = _framework(given)
    ours = _framework(kind if isinstance(kind, type) else kind[0])
    if theirs and theirs != ours:
        hint = f"of {theirs}, but this is for {ours}"
    return f"{name}= takes {wanted}; got {given.__name__}{f' ({hint})' if hint else ''}"


def _framework(kind: type) -> str:
    """The framework whose class this is, or is derived from; "" for none."""
    for base in kind.__mro__:
        for prefix, framework in FRAMEWORKS.items():
            if base.__module__.startswith(prefix):
                return framework
    return ""


OTHER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "model_name_or_path": ("model",),
    "model_id": ("model",),
    "url": ("base_url", "uri"),
    "api_base": ("base_url",),
    "openai_api_base": ("base_url",),
    "openai_api_key": ("api_key",),
    "api_key": ("token",),
    "top_k": ("k",),
    "topk": ("k", "top_k"),
    "limit": ("k",),
    "n_results": ("k",),
    "threshold": ("score_threshold",),
    "base_retriever": ("retriever",),
    "base_compressor": ("reranker",),
    "compressor": ("reranker",),
    "similarity_top_k": ("k", "top_k"),
    "k": ("top_k",),
    "node_postprocessors": ("reranker",),
    "embedding": ("embeddings", "embed_model"),
    "embedding_function": ("embeddings", "embed_model"),
    "embed_model": ("embeddings",),
    "embeddings": ("embed_model",),
    "collection": ("collection_name",),
    "metric_type": ("metric",),
    "similarity_metric": ("metric",),
    "index": ("index_type",),
    "enable_sparse": ("hybrid",),
    "overwrite": ("drop_old",),
    "drop_old": ("overwrite",),
}
"""What other components call an argument, and what ours do: the first name that there is."""


def suggest(given: object, fields: Mapping[str, Any]) -> None:
    """Raise for an unknown argument of a component if it is clear which one is meant.

    Args:
        given: Arguments by name; anything else is left alone.
        fields: A pydantic model's.

    Raises:
        ValueError: That names both, or says why there is none.
    """
    if not isinstance(given, Mapping):
        return
    known = {*fields, *(field.alias for field in fields.values() if field.alias)}
    for name in given:
        carried = CARRIED_OVER.get(name) if name not in known else None
        if carried and (carried.ours is None or carried.ours in known):
            msg = f"unknown argument {name!r}: {'use ' if carried.ours else ''}{carried}"
            raise ValueError(msg)
    if hint := suggestion(given, known):
        raise ValueError(hint)


def suggests(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function's TypeError for an unknown argument name the one that is meant."""
    known = signature(function).parameters

    @wraps(function)
    def suggesting(*args: P.args, **kwargs: P.kwargs) -> T:
        if hint := suggestion(kwargs, known):
            msg = f"{function.__name__}: {hint}"
            raise TypeError(msg)
        return function(*args, **kwargs)

    return suggesting


def takes(model: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Give a function that hands all on the parameters of the one that it hands them to."""

    def with_parameters(function: Callable[..., T]) -> Callable[P, T]:
        function.__signature__ = signature(model)  # type: ignore[attr-defined]
        return function

    return with_parameters


def suggestion(given: Iterable[object], known: Collection[str]) -> str | None:
    """What to say of the first unknown name of which it is clear what is meant.

    Args:
        given: Names of arguments; what is no string is left alone.
        known: Names that there are.

    Returns:
        None if it is clear of none.
    """
    for name in given:
        if not isinstance(name, str) or name in known:
            continue
        ours = [other for other in OTHER_NAMES.get(name, ()) if other in known]
        # 0.8, because other names of arguments come up to 0.75: "threshold", "score_threshold".
        close = get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.8)
        if ours or close:
            return f"unknown argument {name!r}: did you mean {(ours or close)[0]}?"
    return None
