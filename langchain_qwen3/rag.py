"""`create_rag_chain`: an LLM answers a question from retrieved passages, with citations."""

from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any, cast

from langchain_core.documents import Document
from langchain_core.language_models import BaseLanguageModel, LanguageModelLike
from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import (
    AddableDict,
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.vectorstores import VectorStore
from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from langchain_qwen3._config import NAMES, READ_ELSEWHERE, check_config, declared_by
from langchain_qwen3._first_stage_arguments import FILTER_LIKE, unbound
from langchain_qwen3.retriever import Qwen3TwoStageRetriever
from qwen3_core.common.validation import check_query
from qwen3_core.rag import ANSWER_INSTRUCTIONS, cited, fence

NO_PASSAGES = "No passages were found."
"""The LLM's context if the retriever returns no passages."""

MADE = ("context", "answer", "citations")
"""Keys that the chain adds to its input."""

HISTORY = "chat_history"
"""Input key of the conversation so far."""

ANSWER_PROMPT = ChatPromptTemplate.from_messages(
    [
        SystemMessage(ANSWER_INSTRUCTIONS),
        ("placeholder", f"{{{HISTORY}}}"),
        ("human", "{context}\n\nQuestion: {question}"),
    ]
)
"""The default prompt."""


class Citation(TypedDict):
    """One passage that the answer cites.

    Entries:
        number: The passage's number in the prompt and in the answer, from 1.
        document: The passage: `context[number - 1]`.
    """

    number: int
    document: Document


class RagAnswer(TypedDict):
    """The chain's output, in addition to the input's other keys.

    Entries:
        question: The question, unchanged.
        context: All passages in the LLM's prompt, in the order of their numbers.
        answer: The LLM's text, with citations such as [1]; or the object from an LLM with
            structured output.
        citations: The passages that the answer cites, each once, in order of first mention.
    """

    question: str
    context: list[Document]
    answer: Any
    citations: list[Citation]


def create_rag_chain(
    retriever: RetrieverLike,
    llm: LanguageModelLike | Runnable[Any, Any],
    *,
    prompt: BasePromptTemplate[Any] | None = None,
) -> Runnable[str | Mapping[str, Any], RagAnswer]:
    r"""A chain from a question to an answer, its passages and its citations.

    Passages are numbered and fenced in tags that their own text cannot close, and the prompt tells
    the LLM not to follow instructions in them. Without passages the prompt says so, so that the LLM
    does not answer from memory.

    The chain is an ordinary Runnable: `invoke`, `batch`, `stream` and their async twins. `stream`
    yields dictionaries: the input, then `{"context": ...}`, `{"answer": "..."}` token by token and
    `{"citations": ...}`; their sum is the result of `invoke`.

    Example:
        ```python
        chain = create_rag_chain(retriever, ChatOpenAI(model="gpt-5-mini"))
        result = chain.invoke("How is data stored?")
        for citation in result["citations"]:
            print(citation["number"], citation["document"].metadata)
        ```

        With the conversation so far, for the LLM and for a history-aware retriever:

        ```python
        from langchain_classic.chains import create_history_aware_retriever

        chain = create_rag_chain(create_history_aware_retriever(llm, retriever, rewrite), llm)
        chain.invoke({"question": "And where is it kept?", "chat_history": messages})
        ```

        With a filter for the first stage (`expr=` in Milvus, `filter=` in most other stores):
        `create_rag_chain(retriever.bind(expr="year > 2020"), llm)`.

    Args:
        retriever: Finds the passages, such as a `Qwen3TwoStageRetriever`. Its input is the
            question. A retriever that begins with a prompt template, such as one from
            `create_history_aware_retriever`, gets the chain's whole input, and the question also as
            `input`.
        llm: A chat model or LLM, such as `ChatOpenAI`; or `llm.with_structured_output(schema)`:
            then `answer` is the object, citations are read by the rules of `qwen3_core.rag.cited`,
            and `stream` yields the answer in one piece.
        prompt: Replaces the default prompt. It has the variables `context` (the fenced passages,
            one string) and `question`; others are filled from the chain's input. The default prompt
            has a placeholder for `chat_history`, a list of messages.

    Returns:
        A Runnable. Its input is the question as a string, or a mapping with the key "question" and
        other keys, which the prompt may use. Its output is a `RagAnswer` with those other keys. It
        raises TypeError for a question that is not a string or an LLM that returns neither text nor
        an object; ValueError for a blank question, for an input with a key that the chain itself
        adds, or for a `chat_history` that nothing reads; and KeyError if the input lacks a required
        variable of the prompt.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the prompt lacks `context` or `question`.
    """
    _check_kind("retriever", retriever, BaseLanguageModel)
    _check_kind("llm", llm, BaseRetriever)
    prompt = _checked(prompt)
    whole = _begins_with_prompt(retriever)
    query: Runnable[Any, Any] = RunnableLambda(_with_input if whole else itemgetter("question"))
    answer = (
        RunnableLambda(_prompt_values)
        | prompt
        | llm
        | RunnableGenerator(_read, _aread, name="answer")
    )
    chain = (
        RunnableLambda(_Check(retriever, prompt), name="check")
        | RunnablePassthrough.assign(context=query | retriever)
        | RunnablePassthrough.assign(answer=answer)
        | RunnableGenerator(_cite, _acite, name="citations")
    )
    named = chain.with_config(run_name="create_rag_chain")
    if elsewhere := declared_by(prompt) | declared_by(llm):
        named = named.with_config(configurable={READ_ELSEWHERE: sorted(elsewhere)})
    # Explicit, because it cannot be inferred, and `get_input_jsonschema` and others need it.
    typed = named.with_types(
        input_type=cast("Any", str | Mapping[str, Any]), output_type=cast("Any", RagAnswer)
    )
    return cast("Runnable[str | Mapping[str, Any], RagAnswer]", typed)


def _check_kind(name: str, value: object, other: type) -> None:
    """Refuse a value that is not a Runnable, or is the `other` argument."""
    bare = unbound(value)
    if isinstance(value, Runnable) and not isinstance(bare, other):
        return
    if isinstance(value, VectorStore):
        hint = "use store.as_retriever()"
    elif isinstance(bare, other):
        hint = "the order is create_rag_chain(retriever, llm)"
    else:
        hint = f"{value!r:.80}"
    msg = f"{name} must be a LangChain {name}, got {type(bare).__name__}: {hint}"
    raise TypeError(msg)


def _checked(prompt: BasePromptTemplate[Any] | None) -> BasePromptTemplate[Any]:
    """The prompt to use; raises if it lacks a required variable."""
    if prompt is None:
        return ANSWER_PROMPT
    if not isinstance(prompt, BasePromptTemplate):
        msg = f"prompt must be a LangChain prompt template, got {type(prompt).__name__}"
        raise TypeError(msg)
    variables = [*prompt.input_variables, *prompt.optional_variables]
    if not {"context", "question"} <= set(variables):
        msg = (
            "prompt must have the variables context and question, but it has: "
            f"{', '.join(variables) or 'none'}"
        )
        raise ValueError(msg)
    return prompt


def _begins_with_prompt(runnable: Any) -> bool:
    """Whether a runnable begins with a prompt, and so needs a mapping as input."""
    if isinstance(runnable, RunnableBindingBase):
        return _begins_with_prompt(runnable.bound)
    if isinstance(runnable, RunnableWithFallbacks):
        return _begins_with_prompt(runnable.runnable)
    if isinstance(runnable, RunnableSequence):
        return _begins_with_prompt(runnable.first)
    if isinstance(runnable, RunnableBranch):
        ways = [runnable.default, *(way for _, way in runnable.branches)]
        return any(_begins_with_prompt(way) for way in ways)
    return isinstance(runnable, BasePromptTemplate)


class _Check:
    """Checks the chain's input, config and arguments; a class, so that chains can be pickled."""

    def __init__(self, retriever: RetrieverLike, prompt: BasePromptTemplate[Any]) -> None:
        self._retriever = retriever
        self._whole = _begins_with_prompt(retriever)
        self._read = (*prompt.input_variables, *prompt.optional_variables)
        bare: Any = unbound(retriever)
        # Ours checks the config itself; functions may read it.
        kinds = isinstance(bare, BaseRetriever | DynamicRunnable)
        self._checks_config = kinds and not isinstance(bare, Qwen3TwoStageRetriever)

    def __call__(
        self, value: str | Mapping[str, Any], config: RunnableConfig, **kwargs: Any
    ) -> dict[str, Any]:
        if self._checks_config:
            check_config(config.get("configurable", {}), self._retriever)
        if kwargs:
            msg = (
                f"the chain passes no {', '.join(kwargs)} on to the search: bind it to the "
                "retriever, create_rag_chain(retriever.bind(...), llm)"
            )
            raise TypeError(msg)
        given = _input(value)
        if given.get(HISTORY) and not self._whole and HISTORY not in self._read:
            msg = (
                f"neither the prompt nor the retriever reads the input's {HISTORY!r}: give the "
                f'prompt ("placeholder", "{{{HISTORY}}}"), or the input another name'
            )
            raise ValueError(msg)
        for name in given:
            if str(name).lower() not in FILTER_LIKE | NAMES or name in self._read:
                continue
            if not self._whole or not _may_read(self._retriever, name):
                field = name if name in ("k", "top_n") else "search_kwargs"
                msg = (
                    f"the input's {name!r} would reach neither the search nor the prompt: bind it "
                    f'to the retriever, or pass config={{"configurable": {{"{field}": ...}}}} with '
                    f"retriever.configurable_fields({field}=...)"
                )
                if self._whole:
                    msg += "; if a function reads it, give that key another name"
                raise ValueError(msg)
        return given


def _may_read(runnable: Any, name: str) -> bool:
    """Whether an input schema at the beginning of a runnable has this key.

    Of a function, LangChain infers it from plain uses such as `given["filter"]`.
    """
    if isinstance(runnable, RunnableBindingBase):
        return _may_read(runnable.bound, name)
    if isinstance(runnable, RunnableWithFallbacks):
        return any(_may_read(each, name) for each in (runnable.runnable, *runnable.fallbacks))
    if isinstance(runnable, RunnableSequence):
        return _may_read(runnable.first, name)
    if isinstance(runnable, RunnableBranch):
        ways = [runnable.default, *(each for branch in runnable.branches for each in branch)]
        return any(_may_read(way, name) for way in ways)
    try:
        return name in runnable.get_input_jsonschema().get("properties", {})
    except (PydanticInvalidForJsonSchema, TypeError):  # it has no schema
        return False


def _with_input(state: dict[str, Any]) -> dict[str, Any]:
    return {"input": state["question"], **state}


def _input(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """The chain's input as a dictionary, with a checked question."""
    given = dict(value) if isinstance(value, Mapping) else {"question": value}
    if "question" not in given:
        msg = f"the chain's input has no 'question' (its keys: {', '.join(map(str, given))})"
        raise ValueError(msg)
    taken = [key for key in MADE if key in given]
    if taken:
        msg = f"the chain itself adds {', '.join(map(repr, taken))}: name that input otherwise"
        raise ValueError(msg)
    check_query(given["question"])
    return given


def _prompt_values(state: dict[str, Any]) -> dict[str, Any]:
    texts = [document.page_content for document in state["context"]]
    return {**state, "context": fence(texts) if texts else NO_PASSAGES}


class _Reading:
    """An LLM's output, chunk by chunk."""

    def __init__(self) -> None:
        self.answer: str | object = ""
        self._called: list[str] = []

    def read(self, chunk: object) -> Iterator[str]:
        """The text of a chunk; nothing for an object, which is stored."""
        if isinstance(chunk, BaseMessage):
            calls = getattr(chunk, "tool_calls", [])
            self._called += [call["name"] for call in calls if call["name"]]
            chunk = str(chunk.text)
        if isinstance(chunk, str) and isinstance(self.answer, str):
            self.answer += chunk
            yield chunk
        elif isinstance(chunk, (BaseModel, Mapping)):
            self.answer = chunk  # all objects before the last one are incomplete
        else:
            msg = (
                f"the LLM's output is neither text nor an object but {type(chunk).__name__}: give "
                "create_rag_chain a chat model, an LLM, or llm.with_structured_output(schema)"
            )
            raise TypeError(msg)

    def end(self) -> Iterator[object]:
        """The object, if the output was one."""
        if not isinstance(self.answer, str):
            yield self.answer
        elif self._called and not self.answer:
            msg = (
                f"the LLM called the tool {self._called[0]!r} in place of an answer: give "
                "create_rag_chain an LLM without tools, or llm.with_structured_output(schema)"
            )
            raise TypeError(msg)


def _read(chunks: Iterator[object]) -> Iterator[object]:
    """The answer in the LLM's output: its text as it arrives, or its object."""
    reading = _Reading()
    for chunk in chunks:
        yield from reading.read(chunk)
    yield from reading.end()


async def _aread(chunks: AsyncIterator[object]) -> AsyncIterator[object]:
    reading = _Reading()
    async for chunk in chunks:
        for text in reading.read(chunk):
            yield text
    for answer in reading.end():
        yield answer


def _cite(chunks: Iterator[dict[str, Any]]) -> Iterator[AddableDict]:
    """Forward the chunks as they arrive, then yield the citations of the whole answer."""
    # Not `RunnablePassthrough.assign`: its branches share a lock over the stream, so that tokens
    # wait for later tokens.
    answer: Any = ""
    context: list[Document] = []
    for chunk in chunks:
        answer = _sum(answer, chunk)
        context = chunk.get("context", context)
        yield AddableDict(chunk)
    yield AddableDict(citations=_citations(answer, context))


async def _acite(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[AddableDict]:
    answer: Any = ""
    context: list[Document] = []
    async for chunk in chunks:
        answer = _sum(answer, chunk)
        context = chunk.get("context", context)
        yield AddableDict(chunk)
    yield AddableDict(citations=_citations(answer, context))


def _sum(answer: Any, chunk: Mapping[str, Any]) -> Any:
    more = chunk.get("answer", "")
    return answer + more if isinstance(more, str) else more


def _citations(answer: object, context: list[Document]) -> list[Citation]:
    numbers = cited(answer, len(context))
    return [Citation(number=n, document=context[n - 1]) for n in numbers]
