"""`create_rag_chain`: a question answered by an LLM from retrieved passages, with citations."""

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
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.vectorstores import VectorStore
from pydantic import BaseModel
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from langchain_qwen3._arguments import FILTER_LIKE
from qwen3_core.common.validation import check_query
from qwen3_core.rag import ANSWER_INSTRUCTIONS, cited, fence

NO_PASSAGES = "No passages were found."
"""What the LLM reads in place of passages when the retriever returns none."""

MADE = ("context", "answer", "citations")
"""What the chain adds to its input."""

HISTORY = "chat_history"
"""Key of the input that holds the conversation so far."""

ANSWER_PROMPT = ChatPromptTemplate.from_messages(
    [
        SystemMessage(ANSWER_INSTRUCTIONS),
        ("placeholder", f"{{{HISTORY}}}"),
        ("human", "{context}\n\nQuestion: {question}"),
    ]
)
"""The standard prompt."""


class Citation(TypedDict):
    """One passage that the answer cites.

    Entries:
        number: The passage's number in the prompt and in the answer, from 1.
        document: The passage: `context[number - 1]`.
    """

    number: int
    document: Document


class RagAnswer(TypedDict):
    """What the chain returns, beside the input's other keys.

    Entries:
        question: The question as it was asked.
        context: All passages that the LLM was given, in the order of their numbers.
        answer: The LLM's text, with citations such as [1]; or the object that an LLM with
            structured output gives.
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
    r"""A chain from a question to an answer, the passages it stands on, and its citations.

    Passages are numbered and fenced in tags that their own text cannot close, and the LLM is told
    not to follow what they say. Without passages it is told that there are none, so that it can say
    so rather than answer from memory.

    The chain is an ordinary Runnable: `invoke`, `batch`, `stream` and their async twins. `stream`
    yields dictionaries: the input, then `{"context": ...}`, `{"answer": "..."}` token by token and
    `{"citations": ...}`; their sum is what `invoke` returns.

    Example:
        ```python
        chain = create_rag_chain(retriever, ChatOpenAI(model="gpt-5-mini"))
        result = chain.invoke("How is data stored?")
        for citation in result["citations"]:
            print(citation["number"], citation["document"].metadata)
        ```

        With the conversation so far, which the LLM reads, and the retriever if it can:

        ```python
        from langchain_classic.chains import create_history_aware_retriever

        chain = create_rag_chain(create_history_aware_retriever(llm, retriever, rewrite), llm)
        chain.invoke({"question": "And where is it kept?", "chat_history": messages})
        ```

        With a filter for the first stage (`expr=` is Milvus's word, most stores say `filter=`):
        `create_rag_chain(retriever.bind(expr="year > 2020"), llm)`.

    Args:
        retriever: Finds the passages, e.g. a `Qwen3TwoStageRetriever`. It gets the question; one
            that begins with a prompt template, such as `create_history_aware_retriever` makes, gets
            the chain's whole input, the question as `input` too.
        llm: A chat model or LLM, e.g. `ChatOpenAI`; or `llm.with_structured_output(schema)`, where
            `answer` is the object, citations are read as `qwen3_core.rag.cited` says, and `stream`
            gives the answer whole.
        prompt: In place of the standard one. It has the variables `context` (the fenced passages,
            one string) and `question`; any others are filled from the chain's input. The standard
            prompt has a place for `chat_history`, a list of messages.

    Returns:
        A Runnable that takes the question as a string, or a mapping with the key "question" and any
        others, which the prompt may use; it returns a `RagAnswer` with those others beside. It
        raises TypeError for a question that is no string or an LLM that gives neither text nor an
        object, ValueError for a blank question, for an input with a key that the chain itself
        adds, or for a `chat_history` that nothing would read, and KeyError if the input lacks a
        variable of the prompt that is not optional.

    Raises:
        TypeError: If an argument is not what its name says.
        ValueError: If the prompt lacks `context` or `question`.
    """
    _check_kind("retriever", retriever, BaseLanguageModel)
    _check_kind("llm", llm, BaseRetriever)
    prompt = _checked(prompt)
    whole = _begins_with_prompt(retriever)
    reads_history = whole or HISTORY in (*prompt.input_variables, *prompt.optional_variables)

    def check(value: str | Mapping[str, Any]) -> dict[str, Any]:
        given = _input(value)
        if given.get(HISTORY) and not reads_history:
            msg = (
                f"neither the prompt nor the retriever reads the input's {HISTORY!r}: give the "
                f'prompt ("placeholder", "{{{HISTORY}}}"), or the input another name'
            )
            raise ValueError(msg)
        read = (*prompt.input_variables, *prompt.optional_variables)
        for name in given:
            if str(name).lower() in FILTER_LIKE | {"search_kwargs"} and not whole | (name in read):
                msg = (
                    f"the input's {name!r} would reach neither the search nor the prompt: pass a "
                    'filter as config={"configurable": {"search_kwargs": ...}} with '
                    "retriever.configurable_fields(search_kwargs=...), or bind it to the retriever"
                )
                raise ValueError(msg)
        return given

    query: Runnable[Any, Any] = RunnableLambda(_with_input if whole else itemgetter("question"))
    answer = (
        RunnableLambda(_prompt_values)
        | prompt
        | llm
        | RunnableGenerator(_read, _aread, name="answer")
    )
    chain = (
        RunnableLambda(check)
        | RunnablePassthrough.assign(context=query | retriever)
        | RunnablePassthrough.assign(answer=answer)
        | RunnableGenerator(_cite, _acite, name="citations")
    )
    named = chain.with_config(run_name="create_rag_chain")
    # Said, because it cannot be inferred: `get_input_jsonschema` and its like ask for it.
    typed = named.with_types(
        input_type=cast("Any", str | Mapping[str, Any]), output_type=cast("Any", RagAnswer)
    )
    return cast("Runnable[str | Mapping[str, Any], RagAnswer]", typed)


def _check_kind(name: str, value: object, other: type) -> None:
    """Refuse what is no Runnable, or is the `other` argument."""
    bare = value
    while isinstance(bare, RunnableBindingBase):  # of `bind`, `with_config`, ...
        bare = bare.bound
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
    """The prompt to use, with the variables that it must have."""
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
    """Whether a runnable fills a prompt's variables from its input, so that it wants a mapping."""
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


def _with_input(state: dict[str, Any]) -> dict[str, Any]:
    return {"input": state["question"], **state}


def _input(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """The chain's input as a dictionary, its question checked."""
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
        """The text of a chunk; none for an object, which is kept."""
        if isinstance(chunk, BaseMessage):
            calls = getattr(chunk, "tool_calls", [])
            self._called += [call["name"] for call in calls if call["name"]]
            chunk = str(chunk.text)
        if isinstance(chunk, str) and isinstance(self.answer, str):
            self.answer += chunk
            yield chunk
        elif isinstance(chunk, (BaseModel, Mapping)):
            self.answer = chunk  # what comes before the last one is incomplete
        else:
            msg = (
                f"the LLM's output is neither text nor an object but {type(chunk).__name__}: give "
                "create_rag_chain a chat model, an LLM, or llm.with_structured_output(schema)"
            )
            raise TypeError(msg)

    def end(self) -> Iterator[object]:
        """The object, if it was one."""
        if not isinstance(self.answer, str):
            yield self.answer
        elif self._called and not self.answer:
            msg = (
                f"the LLM called the tool {self._called[0]!r} in place of an answer: give "
                "create_rag_chain an LLM without tools, or llm.with_structured_output(schema)"
            )
            raise TypeError(msg)


def _read(chunks: Iterator[object]) -> Iterator[object]:
    """The answer out of what the LLM gives: its text as it comes, or its object."""
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
    """Pass the chunks on as they come, and then say which passages the whole answer cites."""
    # `RunnablePassthrough.assign` would do, but its branches share a lock over the stream, so that
    # tokens wait for later tokens.
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
