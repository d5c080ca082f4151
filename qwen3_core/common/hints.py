"""Error hints for arguments and classes that belong to other libraries or the other framework."""

from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import Any, Final, NamedTuple, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Carried(NamedTuple):
    """Our equivalent of another wrapper's argument."""

    ours: str | None
    """Our argument; None if there is none."""

    note: str = ""
    """Further advice."""

    def __str__(self) -> str:
        """The line for error messages and docs/howto/migration.md."""
        return "; ".join(part for part in (f"{self.ours}=" if self.ours else "", self.note) if part)


ALWAYS: Final = Carried(None, "not needed: vectors always have length 1")
PACKS: Final = Carried(
    None, "not needed: forward passes are filled by tokens; pack_tokens= bounds them"
)
SENTENCE: Final = Carried("instruction", 'the sentence alone, without "Instruct:" and "Query:"')
ONE_BY_ONE: Final = Carried(
    None, "not needed: device=, dtype=, dimensions=, revision= stand by themselves"
)
DOCUMENTS: Final = Carried(None, "not possible: these models read documents without an instruction")
SIDES: Final = Carried(None, "not needed: queries and documents have a method each")
ONE_PROCESS: Final = Carried(
    None, "not needed: one process serves all callers; for GPUs see docs/scale.md"
)
TOKENS: Final = Carried("max_length", "in tokens, instruction and query included")

CARRIED_OVER: Final[dict[str, Carried]] = {
    "query_instruction": SENTENCE,
    "query_instruction_for_retrieval": SENTENCE,
    "embed_instruction": DOCUMENTS,
    "text_instruction": DOCUMENTS,
    "document_instruction": DOCUMENTS,
    "passage_instruction": DOCUMENTS,
    "prompt": SENTENCE,
    "prompts": SENTENCE,
    "prompt_name": Carried("instruction", "a task's name or a sentence; queries always get it"),
    "default_prompt_name": Carried(
        "instruction", "a task's name or a sentence; queries always get it"
    ),
    "query_encode_kwargs": SENTENCE,
    "query_prompt": SENTENCE,
    "query_prefix": SENTENCE,
    "task_description": SENTENCE,
    "document_prefix": DOCUMENTS,
    "doc_prefix": DOCUMENTS,
    "task_type": SIDES,
    "input_type": SIDES,
    "encode_kwargs": Carried(
        None, "not needed: vectors have length 1, and passes are filled by tokens"
    ),
    "model_kwargs": ONE_BY_ONE,
    "config_kwargs": ONE_BY_ONE,
    "cross_encoder_kwargs": Carried("max_length", "and device=, dtype=; only the document is cut"),
    "tokenizer_kwargs": Carried("max_length", "only the document is cut"),
    "torch_dtype": Carried("dtype"),
    "precision": Carried("dtype"),
    "device_map": Carried("device", '"auto" takes CUDA, else MPS, else the CPU'),
    "use_gpu": Carried("device", '"auto" takes CUDA, else MPS, else the CPU'),
    "load_in_8bit": Carried("dtype", '"int8", on CPUs with VNNI instructions'),
    "quantization_config": Carried("dtype", '"int8", on CPUs with VNNI instructions'),
    "attn_implementation": Carried(None, "not needed: the encoder has its own attention"),
    "use_fp16": Carried("dtype", '"float16"; "auto" takes what the hardware has'),
    "truncate_dim": Carried("dimensions", "vectors get length 1 again after the cut"),
    "matryoshka_dim": Carried("dimensions", "vectors get length 1 again after the cut"),
    "output_dimensionality": Carried("dimensions", "vectors get length 1 again after the cut"),
    "normalize": ALWAYS,
    "normalize_embeddings": ALWAYS,
    "similarity_fn_name": Carried(None, "not needed: inner product and cosine are equal here"),
    "pooling": Carried(None, "not needed: these models are read at the last token"),
    "max_seq_length": TOKENS,
    "max_tokens_per_doc": TOKENS,
    "max_tokens": TOKENS,
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
    "max_retries": Carried("server", "a Server with retries="),
    "request_timeout": Carried("timeout", "in seconds"),
    "show_progress_bar": Carried("show_progress"),
    "cohere_api_key": Carried("api_key", "with base_url= for a server; else the model runs here"),
    "voyage_api_key": Carried("api_key", "with base_url= for a server; else the model runs here"),
    "jina_api_key": Carried("api_key", "with base_url= for a server; else the model runs here"),
}
"""Arguments of the classes that users migrate from. docs/howto/migration.md shows this table."""

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
"""By package: names from the other framework's package, and our equivalents."""


def no_attribute(package: str, name: str) -> NoReturn:
    """Raise the error for a name that a framework's package does not have (PEP 562).

    Raises:
        ImportError: If the name is the other framework's; it names the equivalent here. Python
            would replace an AttributeError's message.
        AttributeError: If it is any other name.
    """
    if here := CLASSES[package].get(name):
        other = next(p for p in CLASSES if p != package)
        msg = f"{package} has no {name}: use {here} here; {name} is in {other}"
        raise ImportError(msg)
    msg = f"module {package!r} has no attribute {name!r}"
    raise AttributeError(msg)


def by_name(kind: type, given: tuple[object, ...], first: str) -> None:
    """Refuse positional arguments.

    Args:
        kind: The component's class.
        given: Positional arguments; never shown, because they may contain a key.
        first: The first argument by name, such as `model=...`.

    Raises:
        TypeError: If there are any; it shows how to name them.
    """
    if given:
        msg = f"{kind.__name__} takes arguments by name: write {kind.__name__}({first})"
        raise TypeError(msg)


def one_model(given: object, field: str) -> Any:
    """Rename `model` or `model_name`, which are the same setting, to the field's name.

    Args:
        given: Arguments by name; anything else is returned unchanged.
        field: The field's name, "model" or "model_name".

    Raises:
        ValueError: If both are given and differ.
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
"""Prefixes of package names, and the frameworks that they belong to."""


def misplaced(
    name: str,
    value: object,
    kind: type | tuple[type, ...],
    wanted: str,
    hints: Mapping[Any, str] | None = None,
) -> str | None:
    """The error message for an argument of the wrong class.

    Args:
        name: The argument's name.
        value: The argument; never shown, because it may be a key.
        kind: The accepted class or classes.
        wanted: The accepted kind in words, such as "a Qwen3Reranker".
        hints: Advice by wrong class.

    Returns:
        The message; None if the class is right.
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
    """The framework that this class or one of its bases belongs to; "" if none."""
    for base in kind.__mro__:
        for prefix, framework in FRAMEWORKS.items():
            if base.__module__.startswith(prefix):
                return framework
    return ""


OTHER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "model_name_or_path": ("model",),
    "model_id": ("model",),
    "model_path": ("model",),
    "repo_id": ("model",),
    "endpoint": ("base_url", "uri"),
    "rerank_top_n": ("top_n",),
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
"""Other libraries' argument names, and ours; the first one that the component has is suggested."""


def suggest(given: object, fields: Mapping[str, Any]) -> None:
    """Refuse an unknown argument of a component if the intended one can be guessed.

    Args:
        given: Arguments by name; anything else is ignored.
        fields: A pydantic model's fields.

    Raises:
        ValueError: It names both arguments, or says why there is no equivalent.
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


def check_names(given: object, kind: type, fields: Mapping[str, Any]) -> None:
    """Refuse an unknown argument of a component, and list those that it takes.

    Args:
        given: Arguments by name; anything else is ignored.
        kind: The component's class.
        fields: Its fields (a pydantic model's).

    Raises:
        ValueError: As in `suggest`, or with the list.
    """
    suggest(given, fields)
    known = {field.alias or name for name, field in fields.items()}
    for name in given if isinstance(given, Mapping) else ():
        if name not in known and name not in fields:
            msg = f"unknown argument {name!r}: {kind.__name__} takes {', '.join(sorted(known))}"
            raise ValueError(msg)


def suggests(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: the TypeError for an unknown argument suggests the intended one."""
    known = signature(function).parameters

    @wraps(function)
    def suggesting(*args: P.args, **kwargs: P.kwargs) -> T:
        if hint := suggestion(kwargs, known):
            msg = f"{function.__name__}: {hint}"
            raise TypeError(msg)
        return function(*args, **kwargs)

    return suggesting


def takes(model: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Decorator: a function that forwards all arguments gets the parameters of its target."""

    def with_parameters(function: Callable[..., T]) -> Callable[P, T]:
        returned = signature(function).return_annotation
        function.__signature__ = signature(model).replace(  # type: ignore[attr-defined]
            return_annotation=returned
        )
        return function

    return with_parameters


def suggestion(given: Iterable[object], known: Collection[str]) -> str | None:
    """A "did you mean" for the first unknown name that has one.

    Args:
        given: Argument names; values that are not strings are ignored.
        known: The valid names.

    Returns:
        The suggestion; None if no unknown name has one.
    """
    for name in given:
        if not isinstance(name, str) or name in known:
            continue
        ours = [other for other in OTHER_NAMES.get(name, ()) if other in known]
        # 0.8, because distinct arguments reach 0.75: "threshold" and "score_threshold".
        close = get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.8)
        if ours or close:
            return f"unknown argument {name!r}: did you mean {(ours or close)[0]}?"
    return None
