"""Retrieve, rerank, answer with citations: a query engine in one call."""

import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from functools import partial
from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.types import RESPONSE_TEXT_TYPE
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilters

from llama_index_qwen3.embedding import Qwen3Embedding
from llama_index_qwen3.rerank import Qwen3Rerank
from qwen3_core.common.hints import misplaced, suggestion
from qwen3_core.common.validation import (
    check_query,
    check_top_n,
    got,
    is_count,
)
from qwen3_core.engine import shutdown as leaving
from qwen3_core.rag import ANSWER_INSTRUCTIONS, cited, fence, nothing_found

logger = logging.getLogger(__name__)

DEFAULT_TOP_N = 3
"""Passages kept for the answer where nobody says how many."""

ANSWER_PROMPT = ChatPromptTemplate(
    [
        ChatMessage(ANSWER_INSTRUCTIONS, role=MessageRole.SYSTEM),
        ChatMessage("{context_str}\n\nQuestion: {query_str}", role=MessageRole.USER),
    ]
)
"""Default prompt; `context_str` is the fenced, numbered passages, `query_str` the question."""

NARROWING = ("filters", "node_ids", "doc_ids", "vector_store_kwargs")
"""Arguments of a search that may exclude everything."""

_TAG_TOKENS = 24
"""Room kept for the tags around a passage (about 15 tokens) and the framework's own padding."""

_RERANKERS: dict[type, str] = {Qwen3Rerank: "it reranks: pass it as reranker="}
_EMBEDDERS: dict[type, str] = {BaseEmbedding: "it embeds: pass it as embed_model="}

COMPONENTS: dict[str, tuple[Any, str, dict[Any, str]]] = {
    "llm": (LLM, "an LLM of LlamaIndex", _EMBEDDERS | _RERANKERS),
    "embed_model": (
        BaseEmbedding,
        "an embedding model of LlamaIndex, such as Qwen3Embedding",
        {str: "write Qwen3Embedding(model=...)", **_RERANKERS},
    ),
    "reranker": (
        Qwen3Rerank,
        "a Qwen3Rerank",
        {str: "write Qwen3Rerank(model=...)", **_EMBEDDERS},
    ),
    "filters": (
        MetadataFilters,
        "MetadataFilters",
        {
            str: "a Milvus expression goes to vector_store_kwargs={'string_expr': ...}",
            dict: "write MetadataFilters(filters=[MetadataFilter(key=..., value=...)])",
        },
    ),
    "text_qa_template": (
        BasePromptTemplate,
        "a prompt template of LlamaIndex",
        {str: "write PromptTemplate(...)"},
    ),
}
"""What an argument takes, and hints at what is taken for it: see `misplaced`."""


class CitedPassages(BaseSynthesizer):
    """Answers in one LLM call from numbered passages that cannot pretend to be anything else.

    Passage i is source node i. `response.metadata["citations"]` holds the numbers that the answer
    cites, in order of first mention, beside LlamaIndex's own entries (node id -> node metadata).
    While a response streams the list is empty; it is filled when the stream ends. Without any node
    there is no LLM call, and the list stays empty.

    Passages that do not fit into the LLM's context window together are cut to an equal share of it,
    with a warning in the log.
    """

    def __init__(
        self,
        llm: LLM | None = None,
        *,
        text_qa_template: BasePromptTemplate | None = None,
        streaming: bool = False,
    ) -> None:
        """Set it up.

        Args:
            llm: The LLM; by default `Settings.llm`.
            text_qa_template: Prompt with the variables `context_str` and `query_str`, in place of
                `ANSWER_PROMPT`.
            streaming: Return streaming responses.

        Raises:
            TypeError: If `llm` or the prompt is something else.
            ValueError: If the prompt lacks a variable.
        """
        _check_components(llm=llm, text_qa_template=text_qa_template)
        super().__init__(llm=llm, streaming=streaming)
        self._prompt = _check_prompt(text_qa_template or ANSWER_PROMPT)

    def _get_prompts(self) -> PromptDictType:
        return {"text_qa_template": self._prompt}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        if "text_qa_template" in prompts_dict:
            self._prompt = _check_prompt(prompts_dict["text_qa_template"])

    def synthesize(self, *args: Any, **kwargs: Any) -> RESPONSE_TYPE:
        """The response; without nodes, LlamaIndex's empty one."""
        return _with_citations(super().synthesize(*args, **kwargs))

    async def asynthesize(self, *args: Any, **kwargs: Any) -> RESPONSE_TYPE:
        """The response; without nodes, LlamaIndex's empty one."""
        return _with_citations(await super().asynthesize(*args, **kwargs))

    def get_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """The answer, or a generator of its parts."""
        variables = self._variables(query_str, text_chunks) | response_kwargs
        if self._streaming:
            return self._llm.stream(self._prompt, **variables)
        return self._llm.predict(self._prompt, **variables)

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """The answer, or an asynchronous generator of its parts."""
        variables = self._variables(query_str, text_chunks) | response_kwargs
        if self._streaming:
            return await self._llm.astream(self._prompt, **variables)
        return await self._llm.apredict(self._prompt, **variables)

    def _variables(self, query_str: str, text_chunks: Sequence[str]) -> dict[str, Any]:
        prompt = self._prompt.partial_format(query_str=query_str)
        return {"context_str": self._fence(prompt, text_chunks), "query_str": query_str}

    def _fence(self, prompt: BasePromptTemplate, texts: Sequence[str]) -> str:
        """The fenced passages, cut only if they do not fit into the context window together."""
        fenced = fence(texts)
        window = self._llm.metadata.context_window
        split = self._prompt_helper.get_text_splitter_given_prompt
        try:
            if len(split(prompt, llm=self._llm).split_text(fenced)) == 1:
                return fenced
            share = split(prompt, num_chunks=len(texts), padding=_TAG_TOKENS, llm=self._llm)
        except ValueError as error:
            msg = (
                f"{len(texts)} passages do not fit into the LLM's context_window of {window} "
                "tokens: lower top_n, or set the LLM's context_window to what it really has"
            )
            raise ValueError(msg) from error
        logger.warning(
            "%d passages are more than the LLM's context_window of %d tokens: each is cut to %d",
            len(texts),
            window,
            share.chunk_size,
        )
        return fence(["".join(share.split_text(text)[:1]) for text in texts])

    def _prepare_response_output(
        self, response_str: RESPONSE_TEXT_TYPE | None, source_nodes: list[NodeWithScore]
    ) -> RESPONSE_TYPE:
        citations: list[int] = []
        count = len(source_nodes)
        if isinstance(response_str, Generator):
            response_str = _watch(response_str, count, citations)
        elif isinstance(response_str, AsyncGenerator):
            response_str = _awatch(response_str, count, citations)
        else:
            citations += cited(str(response_str), count)
        response = super()._prepare_response_output(response_str, source_nodes)
        response.metadata = {**(response.metadata or {}), "citations": citations}
        return response


def _with_citations(response: RESPONSE_TYPE) -> RESPONSE_TYPE:
    """The response with a list of citations, also where LlamaIndex made it without our help."""
    response.metadata = {"citations": [], **(response.metadata or {})}
    return response


def _watch(
    tokens: Generator[str, None, None], count: int, citations: list[int]
) -> Generator[str, None, None]:
    """Pass the answer on; at its end, add what it cites to `citations`."""
    answer = ""
    for token in tokens:
        answer += token
        yield token
    citations += cited(answer, count)


async def _awatch(
    tokens: AsyncGenerator[str, None], count: int, citations: list[int]
) -> AsyncGenerator[str, None]:
    """As `_watch`."""
    answer = ""
    async for token in tokens:
        answer += token
        yield token
    citations += cited(answer, count)


def _check_prompt(prompt: BasePromptTemplate) -> BasePromptTemplate:
    missing = {"context_str", "query_str"} - set(prompt.template_vars)
    if missing:
        msg = f"the prompt lacks {{{'}, {'.join(sorted(missing))}}}: put it where it belongs"
        raise ValueError(msg)
    return prompt


class _TwoStageQueryEngine(RetrieverQueryEngine):
    """Refuses blank queries before they reach the vector store, and all when Python exits.

    It says once in the log if the vector store returns nothing.
    """

    def __init__(self, if_nothing: Callable[[], str], **parts: Any) -> None:
        super().__init__(**parts)
        self._if_nothing = if_nothing
        self._spoke_of_nothing = False

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        check_query(query_bundle.query_str)
        with leaving.search():
            return super().retrieve(query_bundle)

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        check_query(query_bundle.query_str)
        with leaving.search():
            return await super().aretrieve(query_bundle)

    # These two alone see what came of the first stage.

    def _apply_node_postprocessors(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle
    ) -> list[NodeWithScore]:
        self._tell_if_nothing(nodes)
        return super()._apply_node_postprocessors(nodes, query_bundle)

    async def _async_apply_node_postprocessors(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle
    ) -> list[NodeWithScore]:
        self._tell_if_nothing(nodes)
        return await super()._async_apply_node_postprocessors(nodes, query_bundle)

    def _tell_if_nothing(self, nodes: list[NodeWithScore]) -> None:
        if not nodes and not self._spoke_of_nothing:
            self._spoke_of_nothing = True
            logger.warning(self._if_nothing())


def two_stage_query_engine(
    index_or_vector_store: VectorStoreIndex | BasePydanticVectorStore,
    llm: LLM | None = None,
    *,
    embed_model: BaseEmbedding | None = None,
    reranker: Qwen3Rerank | None = None,
    top_k: int = 10,
    top_n: int | None = None,
    filters: MetadataFilters | None = None,
    text_qa_template: BasePromptTemplate | None = None,
    streaming: bool = False,
    **retriever_kwargs: Any,
) -> RetrieverQueryEngine:
    """A query engine that retrieves `top_k`, reranks, and answers from the best `top_n`.

    `response.source_nodes` are the reranked nodes in the order of their passage numbers, and
    `response.metadata["citations"]` the numbers that the answer cites (see `CitedPassages`). A
    search that finds nothing at all is spoken of in the log, once.

    Args:
        index_or_vector_store: An index, or a filled vector store such as `MilvusVectorStore`.
        llm: The LLM that answers; by default `Settings.llm`.
        embed_model: For a vector store: the model its vectors were made with, by default
            `Settings.embed_model`, or `Qwen3Embedding()` if that was not set. An index brings its
            own.
        reranker: By default `Qwen3Rerank()`.
        top_k: Candidates to retrieve, at least 1; `milvus_kwargs(k=...)` must allow as many.
        top_n: Passages to answer from, at least 1; by default the reranker's own `top_n`, else 3.
        filters: Which nodes to search among.
        text_qa_template: Prompt with the variables `context_str` and `query_str`, in place of
            `ANSWER_PROMPT`.
        streaming: Answer with a streaming response.
        **retriever_kwargs: Further arguments of the index's `as_retriever`, such as
            `vector_store_query_mode`.

    Raises:
        TypeError: If a component is in the place of another, or an argument unknown.
        ValueError: If a number is out of range, the prompt lacks a variable, or an index is given
            together with an `embed_model`.

    Example:
        ```python
        engine = two_stage_query_engine(index, llm, top_k=50, top_n=5)
        response = engine.query("How is data stored in Milvus?")
        print(response, response.metadata["citations"])
        ```
    """
    _check_components(
        llm=llm,
        embed_model=embed_model,
        reranker=reranker,
        filters=filters,
        text_qa_template=text_qa_template,
    )
    _check_names(retriever_kwargs)
    if not is_count(top_k):
        msg = f"top_k must be at least 1, but {got(top_k)}"
        raise ValueError(msg)
    check_top_n(top_n)
    index = _as_index(index_or_vector_store, embed_model)
    reranker = reranker or Qwen3Rerank()
    # A copy, because the engine will also put its callback manager on it; the model is shared.
    reranker = reranker.model_copy(update={"top_n": top_n or reranker.top_n or DEFAULT_TOP_N})
    given = {**retriever_kwargs, "filters": filters}
    return _TwoStageQueryEngine(
        partial(nothing_found, index.vector_store, [name for name in NARROWING if given.get(name)]),
        retriever=index.as_retriever(similarity_top_k=top_k, filters=filters, **retriever_kwargs),
        response_synthesizer=CitedPassages(
            llm, text_qa_template=text_qa_template, streaming=streaming
        ),
        node_postprocessors=[reranker],
    )


def _default_embed_model() -> BaseEmbedding:
    # The public property would make an OpenAI model where none was set.
    chosen: BaseEmbedding | None = Settings._embed_model  # noqa: SLF001
    return chosen or Qwen3Embedding()


def _check_components(**given: object) -> None:
    """Refuse a component in the place of another, with the place where it belongs.

    Raises:
        TypeError: If one of `COMPONENTS` is of another type; None is left alone.
    """
    for name, value in given.items():
        if value is not None and (msg := misplaced(name, value, *COMPONENTS[name])):
            raise TypeError(msg)


def _check_names(retriever_kwargs: dict[str, Any]) -> None:
    """Refuse what LlamaIndex would ignore.

    Raises:
        TypeError: If an argument is unknown.
    """
    own = set(inspect.signature(two_stage_query_engine).parameters) - {"retriever_kwargs"}
    theirs = set(inspect.signature(VectorIndexRetriever.__init__).parameters)
    theirs -= {"self", "kwargs", "index", "similarity_top_k"}
    known = own | theirs | {"vector_store_kwargs"}  # which it takes out of its kwargs
    if hint := suggestion(retriever_kwargs, known):
        msg = f"two_stage_query_engine: {hint}"
        raise TypeError(msg)
    for name in retriever_kwargs:
        if name not in known:
            names = ", ".join(sorted(known))
            msg = f"two_stage_query_engine has no argument {name!r}: known are {names}"
            raise TypeError(msg)


def _as_index(index_or_vector_store: object, embed_model: BaseEmbedding | None) -> VectorStoreIndex:
    if isinstance(index_or_vector_store, VectorStoreIndex):
        if embed_model is not None:
            msg = "an index brings its own embed_model: give one only together with a vector store"
            raise ValueError(msg)
        return index_or_vector_store
    if isinstance(index_or_vector_store, BasePydanticVectorStore):
        return VectorStoreIndex.from_vector_store(
            index_or_vector_store, embed_model=embed_model or _default_embed_model()
        )
    store = "write MilvusVectorStore(**milvus_kwargs(...))"
    hints = {str: store, dict: store, BaseRetriever: "it is a retriever: pass its index"}
    kinds = (VectorStoreIndex, BasePydanticVectorStore)
    wanted = "a VectorStoreIndex or a vector store of LlamaIndex"
    raise TypeError(misplaced("index_or_vector_store", index_or_vector_store, kinds, wanted, hints))
