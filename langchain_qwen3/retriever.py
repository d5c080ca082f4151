"""`Qwen3TwoStageRetriever`: retrieves many candidates and returns the best after reranking."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableWithFallbacks,
    ensure_config,
    patch_config,
)
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from langchain_qwen3._config import DeclaredFields, ambient, check_config
from langchain_qwen3._first_stage_arguments import (
    check_arguments,
    is_milvus,
    takes_k,
    unbound,
)
from langchain_qwen3._settings import UNSET, Threshold, TopN, check_question, override
from langchain_qwen3.reranker import Qwen3Reranker, ScoredMetadata, with_scores
from qwen3_core.common.docstrings import DESCRIPTIONS, fields_documented
from qwen3_core.common.hints import by_name, misplaced, suggest, suggestion
from qwen3_core.common.validation import (
    check_threshold,
    check_top_n,
)
from qwen3_core.engine import shutdown as leaving
from qwen3_core.prompts import resolve_instruction
from qwen3_core.rag import nothing_found

logger = logging.getLogger(__name__)

DEFAULT_K = 10
"""Default number of candidates from a vector store, as in Milvus' tutorial on these models."""

OVERRIDES = ("k", "top_n", "instruction", "score_threshold", "search_kwargs")
"""Arguments by which a call overrides settings; all others go to the first stage.

They are the keywords of `Qwen3TwoStageRetriever._plan`, and `search_kwargs`, which `_merged` reads.
The docstring of `invoke` lists them for users.
"""


class _Plan(NamedTuple):
    """What to do for a call."""

    first_stage: RetrieverLike
    arguments: dict[str, Any]
    """The first stage's."""
    k: int | None
    """The most candidates."""
    options: dict[str, Any]
    """The reranker's arguments."""
    top_n: int | None


@fields_documented
class Qwen3TwoStageRetriever(BaseRetriever):
    """Retrieves candidates, reranks them and returns the best.

    The first stage is a vector store or any other retriever: give exactly one of the two. Callbacks
    and traces show the first stage and the rerank step as child runs of this retriever's run.

    Each call can override settings and pass arguments to the first stage:
    `retriever.invoke(query, k=50, top_n=5, instruction="fact_check", expr="year > 2020")`. A call's
    `instruction` applies to the reranker; the first stage keeps that of its `Qwen3Embeddings`.
    Filters are called `expr=` in Milvus and `filter=` in most other stores. In a chain, bind them:
    `create_rag_chain(retriever.bind(expr="year > 2020"), llm)`.

    An argument that the first stage would drop raises TypeError. LangChain's stores and retrievers
    accept any keyword and use only some, so only known arguments are passed: those that a store
    names in its search, or a retriever in its `_get_relevant_documents`. An ensemble passes nothing
    to its members: set filters on the members.

    An empty first stage is logged once.

    The documents' metadata has `relevance_score` and `relevance_log_odds` (see `Qwen3Reranker`).
    If the vector store returns its own score, it is there as `retrieval_score`: the cosine
    similarity with `milvus_kwargs`, otherwise the store's own measure. With Chroma and FAISS it is
    a distance, so lower is better. With `score_metadata=False` the metadata is unchanged. Scores
    are ignored when results are compared, so that outer retrievers such as `MultiQueryRetriever`
    return a document once.

    A document that the first stage returns twice is reranked and returned once.

    The reranker reads its own `metadata_keys` before the page content. If it has none set, and the
    first stage is a store of `open_milvus` or a retriever made from one, it reads those of the
    store, so that both models read the same text.

    Example:
        ```python
        retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=Qwen3Reranker(), k=50)
        documents = retriever.invoke("How is data stored?")
        ```

    Raises:
        pydantic.ValidationError: If not exactly one first stage is given, or a setting is out of
            range or unknown (a ValueError).
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a misplaced argument may be a key
    )

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, given: Any) -> Any:
        suggest(given, cls.model_fields)
        if isinstance(given, dict):
            _check_names(given, cls.model_fields)
            _check_stages(given)
        return given

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004 - for __init__
        """Refuse components without their names."""
        by_name(cls, args, "vectorstore=..., reranker=...")
        return super().__new__(cls)

    vectorstore: VectorStore | None = None
    """First stage: a vector store, searched by similarity."""

    retriever: RetrieverLike | None = None
    """First stage: any other retriever, such as a hybrid, an ensemble, or
    `vectorstore.as_retriever(search_type="mmr")`."""

    reranker: BaseDocumentCompressor
    """Second stage: a `Qwen3Reranker`, or another document compressor."""

    k: int | None = None
    """Candidates of the first stage, at least 1. A vector store, or a retriever made from one,
    searches for that many. Of any other retriever's results, the first k are reranked. None: 10
    from a vector store (more if `top_n` is more), all that a retriever returns."""

    top_n: int | None = 3
    """Documents returned, at least 1, instead of the reranker's own `top_n`. None: all k."""

    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the first stage, such as `{"expr": "year > 2020"}` (Milvus) or
    `{"filter": ...}` (other stores)."""

    score_metadata: bool = Field(default=True, description=DESCRIPTIONS["score_metadata"])

    _spoke_of_nothing: bool = PrivateAttr(default=False)
    _declared: frozenset[str] = PrivateAttr(default=frozenset())

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_top_n(self.k, "k")
        check_top_n(self.top_n)
        if (self.vectorstore is None) == (self.retriever is None):
            given = "neither was" if self.vectorstore is None else "both were"
            msg = f"the first stage is either vectorstore= or retriever=, but {given} given"
            raise ValueError(msg)
        if not self.score_metadata and not isinstance(self.reranker, Qwen3Reranker):
            kind = type(self.reranker).__name__
            msg = f"score_metadata=False needs a Qwen3Reranker: a {kind} decides for itself"
            raise ValueError(msg)
        try:
            self._merged(self.search_kwargs)
            first = self.retriever
            if isinstance(first, VectorStoreRetriever) and is_milvus(first.vectorstore):
                check_arguments(first, first.search_kwargs)
        except TypeError as error:
            msg = f"search_kwargs: {error}"
            raise ValueError(msg) from None
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some settings changed; unlike pydantic's, the changes are checked."""
        del deep  # stores and models are shared
        return type(self)(**{**dict(self), **(update or {})})

    def invoke(
        self,
        input: str,  # noqa: A002 - Runnable's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The best documents for a question.

        Args:
            input: The question; not blank.
            config: LangChain's config, such as callbacks.
            **kwargs: `k`, `top_n`, `instruction`, `score_threshold` or `search_kwargs` that replace
                the retriever's own, and arguments of the first stage, such as a filter.

        Raises:
            TypeError: If the question is not a string, or an argument would not reach the search.
            ValueError: If the question is blank, or a setting is out of range.
        """
        return super().invoke(input, config, _config=self._read_config(config, kwargs), **kwargs)

    async def ainvoke(
        self,
        input: str,  # noqa: A002 - Runnable's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Like `invoke`, without blocking the event loop."""
        read = self._read_config(config, kwargs)
        return await super().ainvoke(input, config, _config=read, **kwargs)

    def with_fallbacks(
        self,
        fallbacks: Sequence[Runnable[str, list[Document]]],
        *args: Any,
        **kwargs: Any,
    ) -> RunnableWithFallbacks[str, list[Document]]:
        """As in LangChain, but a fallback that would drop a call's argument is not called.

        LangChain would otherwise answer a call whose filter is refused from a fallback that ignores
        the filter.
        """
        return super().with_fallbacks([_checked(each) for each in fallbacks], *args, **kwargs)

    def configurable_fields(self, **kwargs: Any) -> DeclaredFields:
        """As in LangChain: settings that a call's config replaces, by the ids declared here."""
        plain: Any = super().configurable_fields(**kwargs)  # it checks the names
        return DeclaredFields(default=self, fields=plain.fields)

    def _read_config(
        self, config: RunnableConfig | None, given: Mapping[str, Any]
    ) -> RunnableConfig:
        """The part of a call's config for the first stage, besides callbacks."""
        configurable = ensure_config(config).get("configurable", {})
        own = {"search_kwargs": self.search_kwargs, "k": self.k, "top_n": self.top_n}
        within = check_config(
            configurable, self.retriever, own=own, given=given, declared=self._declared
        )
        return RunnableConfig(configurable=within)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        _config: RunnableConfig | None = None,
        **given: Any,
    ) -> list[Document]:
        plan = self._plan(query, **given)
        config = patch_config(_config, callbacks=run_manager.get_child())
        with leaving.search(), ambient(config):
            candidates = _unique(plan.first_stage.invoke(query, config, **plan.arguments))
        self._tell_if_nothing(candidates, plan.arguments)
        kept = self.reranker.compress_documents(
            candidates[: plan.k], query, callbacks=run_manager.get_child(), **plan.options
        )
        return list(kept)[: plan.top_n]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        _config: RunnableConfig | None = None,
        **given: Any,
    ) -> list[Document]:
        plan = self._plan(query, **given)
        config = patch_config(_config, callbacks=run_manager.get_child())
        with leaving.search(), ambient(config):
            candidates = _unique(await plan.first_stage.ainvoke(query, config, **plan.arguments))
        self._tell_if_nothing(candidates, plan.arguments)
        kept = await self.reranker.acompress_documents(
            candidates[: plan.k], query, callbacks=run_manager.get_child(), **plan.options
        )
        return list(kept)[: plan.top_n]

    def _plan(
        self,
        query: str,
        *,
        k: TopN = UNSET,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        **search_kwargs: Any,
    ) -> _Plan:
        """What to do for a call with these arguments; they are checked before any work."""
        check_question(query, type(self).__name__)
        k = check_top_n(override(k, self.k), "k")
        top_n = check_top_n(override(top_n, self.top_n))
        options: dict[str, Any] = {}
        if instruction is not None:
            options["instruction"] = resolve_instruction(instruction)
        if score_threshold is not UNSET:
            options["score_threshold"] = check_threshold(score_threshold)
        if isinstance(self.reranker, Qwen3Reranker):
            options["top_n"] = top_n
            if not self.score_metadata:
                options["score_metadata"] = False
            if self.reranker.metadata_keys is None and (keys := self._keys_of_store()):
                options["metadata_keys"] = keys
        elif options:
            msg = (
                f"a {type(self.reranker).__name__} takes no {' or '.join(options)} per call; only "
                "a Qwen3Reranker does"
            )
            raise ValueError(msg)
        first_stage, arguments = self._first_stage(k, top_n, search_kwargs)
        return _Plan(first_stage, arguments, k, options, top_n)

    def _keys_of_store(self) -> tuple[str, ...]:
        """The metadata in the vectors of a store of `open_milvus`; () for any other first stage."""
        stage = unbound(self.retriever if self.vectorstore is None else self.vectorstore)
        if isinstance(stage, VectorStoreRetriever):
            stage = stage.vectorstore
        # Compared by name: the module of the class needs langchain-milvus.
        ours = any(kind.__name__ == "Qwen3Milvus" for kind in type(stage).__mro__)
        keys: tuple[str, ...] = getattr(stage, "metadata_keys", ()) if ours else ()
        return keys

    def _first_stage(
        self, k: int | None, top_n: int | None, search_kwargs: dict[str, Any]
    ) -> tuple[RetrieverLike, dict[str, Any]]:
        """The first stage's runnable, and the arguments for its `invoke`."""
        arguments = self._merged(search_kwargs)
        if self.vectorstore is not None:
            arguments["k"] = k or max(DEFAULT_K, top_n or 0)
            kind = _ScoredVectorStoreRetriever if self.score_metadata else VectorStoreRetriever
            return kind(vectorstore=self.vectorstore), arguments
        if self.retriever is None:  # the validator excludes it
            msg = "no first stage"
            raise RuntimeError(msg)
        if k is not None and takes_k(self.retriever):
            arguments["k"] = k
        return self.retriever, arguments

    def _merged(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The first stage's arguments: the retriever's own, overridden by the call's."""
        given = dict(given)
        given.pop("verbose", None)  # BaseRetriever's own
        ours = given.pop("search_kwargs", {})
        if not isinstance(ours, Mapping):
            msg = f"search_kwargs must be a dictionary, got {type(ours).__name__}"
            raise TypeError(msg)
        arguments = {**self.search_kwargs, **ours, **given}
        if "k" in arguments:
            msg = "search_kwargs holds 'k': pass k= to the retriever itself"
            raise TypeError(msg)
        stage: object = self.retriever if self.vectorstore is None else self.vectorstore
        if self.vectorstore is not None and not self.score_metadata:
            stage = VectorStoreRetriever(vectorstore=self.vectorstore)
        try:
            check_arguments(stage, arguments)
        except TypeError:
            if hint := suggestion(arguments, OVERRIDES):
                raise TypeError(hint) from None
            raise
        return arguments

    def _check_arguments(self, names: Iterable[str]) -> None:
        """Refuse arguments that would not reach the search, if this is another's first stage."""
        self._merged(dict.fromkeys(name for name in names if name not in OVERRIDES))

    def _tell_if_nothing(self, candidates: list[Document], arguments: Mapping[str, Any]) -> None:
        """Log once that the first stage returned nothing, with possible causes."""
        if candidates or self._spoke_of_nothing:
            return
        self._spoke_of_nothing = True
        store: object = self.retriever if self.vectorstore is None else self.vectorstore
        narrowed_by = [name for name in arguments if name != "k"]
        if isinstance(store, VectorStoreRetriever):
            narrowed_by += [name for name in store.search_kwargs if name != "k"]
            store = store.vectorstore
        elif store is self.retriever:
            narrowed_by.append("its own filter or threshold")
        logger.warning(nothing_found(store, narrowed_by))


def _checked(fallback: Runnable[str, list[Document]]) -> Runnable[str, list[Document]]:
    """A fallback that refuses arguments and configs which it would drop."""

    def call(question: str, config: RunnableConfig, **kwargs: Any) -> list[Document]:
        check_arguments(fallback, kwargs)
        check_config(config.get("configurable", {}), fallback, given=kwargs)
        return fallback.invoke(question, config, **kwargs)

    async def acall(question: str, config: RunnableConfig, **kwargs: Any) -> list[Document]:
        check_arguments(fallback, kwargs)
        check_config(config.get("configurable", {}), fallback, given=kwargs)
        return await fallback.ainvoke(question, config, **kwargs)

    return RunnableLambda(call, acall, name=fallback.get_name())


def _unique(documents: list[Document]) -> list[Document]:
    """Remove duplicates: a merger repeats documents that several of its members find."""
    seen: dict[str, list[Document]] = {}
    found = []
    for document in documents:
        alike = seen.setdefault(document.page_content, [])
        if document not in alike:
            alike.append(document)
            found.append(document)
    return found


def _check_names(given: Mapping[str, Any], fields: Collection[str]) -> None:
    """Refuse an unknown argument, and say where it belongs."""
    for name in given:
        if name in fields:
            continue
        where = f"arguments of the first stage go into search_kwargs={{{name!r}: ...}}"
        if name in ("instruction", "score_threshold"):
            where = f"set it on the reranker, Qwen3Reranker({name}=...), or pass it in each call"
        elif name == "search_type":
            where = "pass retriever=store.as_retriever(search_type=...)"
        msg = f"unknown argument {name!r}: {where}"
        raise ValueError(msg)


def _check_stages(given: Mapping[str, Any]) -> None:
    """Refuse a component in another component's argument, and name the right argument."""
    stores = "a vector store of LangChain, such as langchain_milvus.Milvus"
    retrievers = "a retriever of LangChain, such as vectorstore.as_retriever()"
    hints: dict[str, dict[type, str]] = {
        "vectorstore": {BaseRetriever: "it is a retriever: pass retriever="},
        "retriever": {VectorStore: "it is a vector store: pass vectorstore="},
        "reranker": {
            str: "write Qwen3Reranker(model=...)",
            Embeddings: "it embeds: give it to the vector store",
        },
    }
    for name, kind, wanted in (
        ("vectorstore", VectorStore, stores),
        ("retriever", Runnable, retrievers),
        ("reranker", BaseDocumentCompressor, "a Qwen3Reranker"),
    ):
        value = given.get(name)
        if value is not None and (msg := misplaced(name, value, kind, wanted, hints[name])):
            raise ValueError(msg)


class _ScoredVectorStoreRetriever(VectorStoreRetriever):
    """Similarity search that keeps the store's score as `retrieval_score` in the metadata."""

    name: str | None = "VectorStoreRetriever"

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - the interface has it
        **kwargs: Any,
    ) -> list[Document]:
        try:
            found = self.vectorstore.similarity_search_with_score(query, **kwargs)
        except NotImplementedError:  # only stores with scores implement this method
            return self.vectorstore.similarity_search(query, **kwargs)
        return [_with_score(document, score) for document, score in found]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 - the interface has it
        **kwargs: Any,
    ) -> list[Document]:
        try:
            found = await self.vectorstore.asimilarity_search_with_score(query, **kwargs)
        except NotImplementedError:
            return await self.vectorstore.asimilarity_search(query, **kwargs)
        return [_with_score(document, score) for document, score in found]


def _with_score(document: Document, score: float) -> Document:
    score_of_store = {"retrieval_score": float(score)}
    return with_scores(document, score_of_store, later=ScoredMetadata.SCORES)
