"""Determines which arguments reach a first stage's search, and refuses those it would drop.

Many of LangChain's retrievers and vector stores accept any keyword and use only some. If a filter
is dropped, the results contain everybody's documents. So an argument is accepted only if the method
that searches names it, or if a method of LangChain is known to pass it on to one that does: a
`**kwargs` promises nothing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any, Final

from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import (
    DynamicRunnable,
    RunnableConfigurableAlternatives,
)
from langchain_core.runnables.fallbacks import RunnableWithFallbacks
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore, VectorStoreRetriever

FILTERS: Final = ("expr", "filter", "filters", "where", "pre_filter")
"""Names that stores use for a filter."""

FILTER_LIKE: Final = {
    *FILTERS,
    *("exp", "expression", "expressions", "string_expr", "exprs", "filter_expr", "filter_by"),
    *("metadata_filter", "metadata_filters", "query_filter", "where_filter", "filter_expression"),
}
"""Names that users mean as a filter."""

MILVUS: Final = frozenset(
    {
        *("param", "expr", "timeout", "partition_names", "consistency_level"),
        *("guarantee_timestamp", "round_decimal", "offset"),
        *("group_by_field", "group_size", "strict_group_size"),
    }
)
"""Arguments that every search of `langchain_milvus.Milvus` honours; pymilvus ignores others."""

MILVUS_DENSE: Final = MILVUS | {
    *("ignore_growing", "filter_params", "ranker", "highlighter", "function_chains"),
}
MILVUS_HYBRID: Final = MILVUS | {
    *("fetch_k", "reranker", "ranker_type", "ranker_params", "rank_group_scorer"),
}
MILVUS_MMR: Final = MILVUS_DENSE | {"fetch_k", "lambda_mult"}

ENTRIES: Final = {
    "similarity": "similarity_search",
    "similarity_score_threshold": "similarity_search_with_relevance_scores",
    "mmr": "max_marginal_relevance_search",
}
"""The method that a vector store's retriever calls, by its `search_type`."""

SCORED: Final = "similarity_search_with_score"
"""The method that `Qwen3TwoStageRetriever` calls on a vector store."""

PASSES_ON: Final[Mapping[Callable[..., Any], str]] = {
    VectorStore.similarity_search_with_score: "similarity_search",  # for stores without scores
    VectorStore.similarity_search_with_relevance_scores: "_similarity_search_with_relevance_scores",
    VectorStore._similarity_search_with_relevance_scores: SCORED,  # noqa: SLF001 - stores override it
    InMemoryVectorStore.similarity_search: SCORED,
    InMemoryVectorStore.similarity_search_with_score: "similarity_search_with_score_by_vector",
    InMemoryVectorStore.max_marginal_relevance_search: "max_marginal_relevance_search_by_vector",
}
"""LangChain's own methods that pass all their arguments on, and the method that gets them."""


def check_arguments(stage: object, arguments: Iterable[str]) -> None:
    """Refuse arguments of a call that would not reach the search.

    After this check, `stage.invoke(question, config, **arguments)` is safe.

    Args:
        stage: A vector store or retriever; it may be bound, configurable or the head of a chain.
        arguments: The arguments' names.

    Raises:
        TypeError: For the first one that `stage` drops or may drop; says where to set it instead.
    """
    names = dict.fromkeys(arguments)
    if isinstance(stage, RunnableBindingBase):
        check_arguments(stage.bound, [*names, *stage.kwargs])
        return
    if parts := _parts(stage):
        for part in parts:
            check_arguments(part, names)
    elif not names:
        return
    elif isinstance(stage, VectorStore):
        _check_store(stage, SCORED, names)
    elif own := getattr(stage, "_check_arguments", None):
        own(names)
    elif isinstance(stage, VectorStoreRetriever) and _is_plain(stage):
        _check_store(stage.vectorstore, ENTRIES[stage.search_type], names)
    elif isinstance(stage, RunnableLambda):
        _check_known(stage, _named(getattr(stage, "func", None) or stage.afunc), names)
    elif isinstance(stage, BaseRetriever) and type(stage).invoke is BaseRetriever.invoke:
        known = _named(type(stage)._get_relevant_documents)  # noqa: SLF001 - invoke calls it
        _check_known(stage, known - {"self", "query", "run_manager"}, names)
    else:
        _check_known(stage, set(), names)


def unbound(stage: object) -> object:
    """What a runnable made by `bind`, `with_config` and the like calls; itself otherwise."""
    while isinstance(stage, RunnableBindingBase):
        stage = stage.bound
    return stage


def takes_k(stage: object) -> bool:
    """Whether a retriever comes from a vector store's `as_retriever`, bound or not."""
    return isinstance(unbound(stage), VectorStoreRetriever)


def _parts(stage: object) -> list[Runnable[Any, Any]]:
    """The runnables that this one passes all its keyword arguments to."""
    if isinstance(stage, RunnableConfigurableAlternatives):
        others = [a for a in stage.alternatives.values() if isinstance(a, Runnable)]
        return [stage.default, *others]
    if isinstance(stage, DynamicRunnable):
        return [stage.default]
    if isinstance(stage, RunnableSequence):
        return [stage.first]
    if isinstance(stage, RunnableWithFallbacks):
        return [stage.runnable, *stage.fallbacks]
    # Compared by name: langchain-classic is not a dependency, and subclasses may differ.
    if _is(type(stage), "langchain_classic", "ContextualCompressionRetriever"):
        return [stage.base_retriever]  # type: ignore[attr-defined]
    return []


def _is(kind: type, package: str, name: str) -> bool:
    return kind.__name__ == name and kind.__module__.startswith(package)


def _is_plain(stage: VectorStoreRetriever) -> bool:
    """Whether it searches like LangChain's own class."""
    search = "_get_relevant_documents"
    same = getattr(type(stage), search) is getattr(VectorStoreRetriever, search)
    return same and stage.search_type in ENTRIES


def _named(function: Any) -> set[str]:
    """The parameters that can be passed by name."""
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    try:
        parameters = signature(function).parameters.values()
    except ValueError:  # raised for some built-in functions
        return set()
    return {p.name for p in parameters if p.kind in kinds}


def _check_known(stage: object, known: Collection[str], names: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            msg = f"{name}= would not reach the search: {_way_out(stage, name)}"
            raise TypeError(msg)


def _way_out(stage: object, name: str) -> str:
    kind = type(stage).__name__
    if hasattr(stage, "retrievers") or hasattr(stage, "retriever"):
        member = f"store.as_retriever(search_kwargs={{{name!r}: ...}})"
        return f"{kind} passes no arguments on; set it in its members, such as {member}"
    if hasattr(stage, "search_kwargs"):
        return f"{kind} takes no such argument in a call; set it in that retriever's search_kwargs"
    if isinstance(stage, RunnableLambda):
        return f"the function does not name {name}; give it a parameter of that name"
    return (
        f"{kind} does not name that argument in its _get_relevant_documents (a **kwargs says not "
        "what it uses); name it there, or set it in that retriever itself"
    )


def _check_store(store: VectorStore, method: str, names: Iterable[str]) -> None:
    kind = type(store).__name__
    known = _known_to(store, method)
    for name in names:
        if name in known or name == "k":
            continue
        hint = _meant(name, known)
        meant = f"; did you mean {hint}=?" if hint else ""
        takes = ", ".join(sorted(known)) or "none"
        unnamed = (
            "; what it uses without naming it goes into its own retriever: "
            f"retriever=store.as_retriever(search_kwargs={{{name!r}: ...}})"
        )
        msg = (
            f"{name}= would not reach the search: {kind}'s search names no such argument{meant} "
            f"(it takes {takes}{'' if is_milvus(store) else unnamed})"
        )
        raise TypeError(msg)


def _meant(name: str, known: Collection[str]) -> str | None:
    """The store's name for a filter, if `name` means one; else None."""
    if name.lower() not in FILTER_LIKE:
        return None
    return next((word for word in FILTERS if word in known), None)


def is_milvus(store: VectorStore) -> bool:
    """Whether it is langchain-milvus's store or a subclass."""
    return any(_is(kind, "langchain_milvus", "Milvus") for kind in type(store).__mro__)


def _known_to(store: VectorStore, method: str) -> set[str]:
    """The arguments of a store's search besides the query and k."""
    known: set[str] = set()
    if is_milvus(store):
        dense = MILVUS_MMR if method == ENTRIES["mmr"] else MILVUS_DENSE
        known |= MILVUS_HYBRID if getattr(store, "_is_multi_vector", False) else dense
    else:
        at: str | None = method
        while at is not None:
            function = getattr(type(store), at)
            known |= _named(function)
            at = PASSES_ON.get(function)
    if method == ENTRIES["similarity_score_threshold"]:
        known.add("score_threshold")  # LangChain's retriever applies it
    return known - {"self", "query", "k", "embedding"}
