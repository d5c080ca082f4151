"""A query engine that retrieves, reranks, and answers with citations."""

import logging
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, Final, Unpack

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.base.response.schema import RESPONSE_TYPE, PydanticResponse
from llama_index.core.llms import LLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryType
from llama_index.core.types import RESPONSE_TEXT_TYPE
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilters
from pydantic import BaseModel

from llama_index_qwen3.retriever import Qwen3TwoStageRetriever, Search, check_components
from qwen3_core.common.docstrings import parameters_documented
from qwen3_core.rag import ANSWER_INSTRUCTIONS, PLAIN_INSTRUCTIONS, cited, fence

logger = logging.getLogger(__name__)


def _prompt(instructions: str) -> ChatPromptTemplate:
    return ChatPromptTemplate(
        [
            ChatMessage(instructions, role=MessageRole.SYSTEM),
            ChatMessage("{context_str}\n\nQuestion: {query_str}", role=MessageRole.USER),
        ]
    )


ANSWER_PROMPT: Final = _prompt(ANSWER_INSTRUCTIONS)
"""Default prompt; `context_str` is the fenced, numbered passages, `query_str` the question."""

PLAIN_PROMPT: Final = _prompt(PLAIN_INSTRUCTIONS)
"""Default prompt without citations."""

_TAG_TOKENS = 24
"""Tokens reserved for the tags around a passage (about 15) and the framework's own padding."""

COMPONENTS: Final[dict[str, tuple[Any, str, dict[Any, str]]]] = {
    "llm": (
        LLM,
        "an LLM of LlamaIndex",
        {
            BaseEmbedding: "it embeds: pass it as embed_model=",
            BaseNodePostprocessor: "it reranks: pass it as reranker=",
        },
    ),
    "text_qa_template": (
        BasePromptTemplate,
        "a prompt template of LlamaIndex",
        {str: "write PromptTemplate(...)"},
    ),
}
"""The accepted classes of each argument, and hints for common mistakes: see `misplaced`."""


class CitedPassages(BaseSynthesizer):
    """Answers in one LLM call from numbered, fenced passages, which cannot imitate the prompt.

    Passage i is source node i. `response.metadata["citations"]` has the numbers that the answer
    cites, in order of first mention, in addition to LlamaIndex's own entries (node id -> node
    metadata). While a response streams, the list is empty; it is filled when the stream ends.
    Without nodes there is no LLM call, and the list stays empty.

    If the passages together exceed the LLM's context window, each is truncated to an equal share of
    it, with a warning in the log.
    """

    def __init__(
        self,
        llm: LLM | None = None,
        *,
        text_qa_template: BasePromptTemplate | None = None,
        output_cls: type[BaseModel] | None = None,
        streaming: bool = False,
        citations: bool = True,
    ) -> None:
        """Check the arguments.

        Args:
            llm: The LLM; by default `Settings.llm`. As in all of LlamaIndex's engines,
                `Settings.callback_manager` becomes its callback manager, unless only the LLM's own
                has handlers.
            text_qa_template: Prompt with the variables `context_str` and `query_str`; replaces
                `ANSWER_PROMPT` or `PLAIN_PROMPT`.
            output_cls: Answer with an object of this class, as with `llm.as_structured_llm`:
                `response.response` is the object. Citations are read from its strings and from a
                field `citations` of integers (see `qwen3_core.rag.cited`).
            streaming: Return streaming responses. `as_query_engine(streaming=True)` does not set
                this on a given synthesizer.
            citations: Number the passages and ask for citations. Use False if an agent, a router or
                a sub-question engine reads the answer: numbers would mean nothing to them. The
                response's metadata then has no "citations".

        Raises:
            TypeError: If `llm` or the prompt has the wrong type.
            ValueError: If the prompt lacks a variable, or `streaming` is set with `output_cls`.
        """
        check_components(COMPONENTS, llm=llm, text_qa_template=text_qa_template)
        llm = llm or Settings.llm
        if output_cls is not None:
            llm = llm.as_structured_llm(output_cls)
        if streaming and isinstance(llm, StructuredLLM):
            msg = "a structured answer cannot be streamed: leave out streaming=True or output_cls="
            raise ValueError(msg)
        # One manager for retrieval and answer: only the one that starts a query's trace drops the
        # events of the query before.
        manager = Settings.callback_manager
        if llm.callback_manager.handlers and not manager.handlers:
            manager = llm.callback_manager
        super().__init__(llm=llm, callback_manager=manager, streaming=streaming)
        self._citations = citations
        default = ANSWER_PROMPT if citations else PLAIN_PROMPT
        self._prompt = _check_prompt(text_qa_template or default)

    def _get_prompts(self) -> PromptDictType:
        return {"text_qa_template": self._prompt}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        if "text_qa_template" in prompts_dict:
            self._prompt = _check_prompt(prompts_dict["text_qa_template"])

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """The response; without nodes, LlamaIndex's empty one."""
        response = super().synthesize(query, nodes, **response_kwargs)
        return self._finish(response, additional_source_nodes)

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """The response; without nodes, LlamaIndex's empty one."""
        response = await super().asynthesize(query, nodes, **response_kwargs)
        return self._finish(response, additional_source_nodes)

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
        fenced = self._fence(prompt, text_chunks, query_str)
        return {"context_str": fenced, "query_str": query_str}

    def _fence(self, prompt: BasePromptTemplate, texts: Sequence[str], question: str) -> str:
        """The fenced passages, truncated only if together they exceed the context window."""
        fenced = fence(texts, numbered=self._citations)
        window = self._llm.metadata.context_window
        split = self._prompt_helper.get_text_splitter_given_prompt
        try:
            if len(split(prompt, llm=self._llm).split_text(fenced)) == 1:
                return fenced
            share = split(prompt, num_chunks=len(texts), padding=_TAG_TOKENS, llm=self._llm)
        except ValueError as error:
            msg = (
                f"{len(texts)} passages do not fit into the LLM's context_window of {window} "
                "tokens: lower top_n"
            )
            if len(question) > len(fenced):
                msg = (
                    f"the question of {len(question):,} characters does not fit into the LLM's "
                    f"context_window of {window} tokens: shorten it"
                )
            msg += ", or set the LLM's context_window to what it really has"
            raise ValueError(msg) from error
        logger.warning(
            "%d passages are more than the LLM's context_window of %d tokens: each is cut to %d",
            len(texts),
            window,
            share.chunk_size,
        )
        cut = ["".join(share.split_text(text)[:1]) for text in texts]
        return fence(cut, numbered=self._citations)

    def _prepare_response_output(
        self, response_str: RESPONSE_TEXT_TYPE | None, source_nodes: list[NodeWithScore]
    ) -> RESPONSE_TYPE:
        citations: list[int] = []
        count = len(source_nodes)
        if self._citations and isinstance(response_str, Generator):
            response_str = _watch(response_str, count, citations)
        elif self._citations and isinstance(response_str, AsyncGenerator):
            response_str = _awatch(response_str, count, citations)
        response = super()._prepare_response_output(response_str, source_nodes)
        if self._citations:
            if isinstance(response_str, str):
                answer = (
                    response.response if isinstance(response, PydanticResponse) else response_str
                )
                citations += cited(answer, count)
            response.metadata = {**(response.metadata or {}), "citations": citations}
        return response

    def _finish(
        self, response: RESPONSE_TYPE, more_nodes: Sequence[NodeWithScore] | None
    ) -> RESPONSE_TYPE:
        """Complete LlamaIndex's empty response, and add nodes that the LLM did not see.

        These nodes come last, so that passage numbers match the first source nodes.
        """
        own: dict[str, Any] = {"citations": []} if self._citations else {}
        response.metadata = {**own, **(response.metadata or {})}
        if more_nodes and response.source_nodes:
            response.source_nodes = [*response.source_nodes, *more_nodes]
            response.metadata |= {found.node.node_id: found.node.metadata for found in more_nodes}
        return response


def _watch(
    tokens: Generator[str, None, None], count: int, citations: list[int]
) -> Generator[str, None, None]:
    """Forward the answer; at its end, add its citations to `citations`."""
    answer = ""
    for token in tokens:
        answer += token
        yield token
    citations += cited(answer, count)


async def _awatch(
    tokens: AsyncGenerator[str, None], count: int, citations: list[int]
) -> AsyncGenerator[str, None]:
    """Like `_watch`, for asynchronous generators."""
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


class TwoStageQueryEngine(RetrieverQueryEngine):
    """Answers over a `Qwen3TwoStageRetriever`; created by `two_stage_query_engine`."""

    def with_filters(
        self, filters: MetadataFilters | None = None, *, string_expr: str | None = None
    ) -> "TwoStageQueryEngine":
        """A copy of the engine with further filters, for one query, customer or request.

        `engine.with_filters(filters).query(question)`. Creating it is cheap: it shares all models
        and connections. See `Qwen3TwoStageRetriever.with_filters` for arguments and errors.
        """
        retriever: Any = self.retriever
        return self.with_retriever(retriever.with_filters(filters, string_expr=string_expr))

    def with_retriever(self, retriever: BaseRetriever) -> "TwoStageQueryEngine":
        """A copy of the engine with another retriever."""
        return TwoStageQueryEngine(
            retriever, self._response_synthesizer, callback_manager=self.callback_manager
        )


@parameters_documented(Qwen3TwoStageRetriever, CitedPassages)
def two_stage_query_engine(
    source: VectorStoreIndex | BasePydanticVectorStore | BaseRetriever,
    llm: LLM | None = None,
    *,
    embed_model: BaseEmbedding | None = None,
    reranker: BaseNodePostprocessor | None = None,
    top_k: int | None = None,
    similarity_top_k: int | None = None,
    top_n: int | None = None,
    filters: MetadataFilters | None = None,
    text_qa_template: BasePromptTemplate | None = None,
    output_cls: type[BaseModel] | None = None,
    streaming: bool = False,
    citations: bool = True,
    **search: Unpack[Search],
) -> TwoStageQueryEngine:
    """A query engine that retrieves `top_k`, reranks, and answers from the best `top_n`.

    It combines `Qwen3TwoStageRetriever` and `CitedPassages`; the arguments are theirs. For a
    filter in one query use `engine.with_filters(...)`. `response.source_nodes` are the reranked
    nodes in the order of their passage numbers, and `response.metadata["citations"]` the numbers
    that the answer cites.

    Raises:
        TypeError: If a component is in another component's argument, or an argument is unknown.
        ValueError: If a number is out of range, the prompt lacks a variable, or an argument would
            be ignored.

    Example:
        ```python
        engine = two_stage_query_engine(index, llm, top_k=50, top_n=5)
        response = engine.query("How is data stored in Milvus?")
        print(response, response.metadata["citations"])
        ```
    """
    check_components(COMPONENTS, llm=llm, text_qa_template=text_qa_template)
    retriever = Qwen3TwoStageRetriever(
        source,
        embed_model=embed_model,
        reranker=reranker,
        top_k=top_k,
        similarity_top_k=similarity_top_k,
        top_n=top_n,
        filters=filters,
        **search,
    )
    synthesizer = CitedPassages(
        llm,
        text_qa_template=text_qa_template,
        output_cls=output_cls,
        streaming=streaming,
        citations=citations,
    )
    return TwoStageQueryEngine(retriever, synthesizer)
