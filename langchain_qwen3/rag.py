"""`create_rag_chain`: a question answered by an LLM from retrieved passages, with citations."""

from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any, cast

from langchain_core.documents import Document
from langchain_core.language_models import BaseLanguageModel, LanguageModelLike
from langchain_core.messages import SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import (
    AddableDict,
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.vectorstores import VectorStore
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from qwen3_core.common.validation import check_query
from qwen3_core.rag import ANSWER_INSTRUCTIONS, cited, fence

NO_PASSAGES = "No passages were found."
"""What the LLM reads in place of passages when the retriever returns none."""

MADE = ("context", "answer", "citations")
"""What the chain adds to its input."""


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
        answer: The LLM's text, with citations such as [1].
        citations: The passages that the answer cites, each once, in order of first mention.
    """

    question: str
    context: list[Document]
    answer: str
    citations: list[Citation]


def create_rag_chain(
    retriever: RetrieverLike,
    llm: LanguageModelLike,
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

        With the conversation so far, which the LLM reads and the retriever does not:

        ```python
        prompt = ChatPromptTemplate.from_messages(
            [
                ("system", "Answer from the passages, and cite them as [1]."),
                ("placeholder", "{chat_history}"),
                ("human", "{context}\n\nQuestion: {question}"),
            ]
        )
        chain = create_rag_chain(retriever, llm, prompt=prompt)
        chain.invoke({"question": "And where is it kept?", "chat_history": messages})
        ```

        With a filter for the first stage (`expr=` is Milvus's word, most stores say `filter=`):
        `create_rag_chain(retriever.bind(expr="year > 2020"), llm)`.

    Args:
        retriever: Finds the passages, e.g. a `Qwen3TwoStageRetriever`.
        llm: A chat model or LLM, e.g. `ChatOpenAI`.
        prompt: In place of the standard one. It has the variables `context` (the fenced passages,
            one string) and `question`; any others are filled from the chain's input.

    Returns:
        A Runnable that takes the question as a string, or a mapping with the key "question" and any
        others, which the prompt may use; it returns a `RagAnswer` with those others beside. It
        raises TypeError for a question that is no string, ValueError for a blank one or for an
        input with a key that the chain itself adds, and KeyError if the input lacks a variable of
        the prompt that is not optional.

    Raises:
        TypeError: If an argument is not what its name says.
        ValueError: If the prompt lacks `context` or `question`.
    """
    _check_kind("retriever", retriever, BaseLanguageModel)
    _check_kind("llm", llm, BaseRetriever)
    answer = RunnableLambda(_prompt_values) | _checked(prompt) | llm | StrOutputParser()
    chain = (
        RunnableLambda(_input)
        | RunnablePassthrough.assign(context=itemgetter("question") | retriever)
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
        return ChatPromptTemplate.from_messages(
            [SystemMessage(ANSWER_INSTRUCTIONS), ("human", "{context}\n\nQuestion: {question}")]
        )
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


def _cite(chunks: Iterator[dict[str, Any]]) -> Iterator[AddableDict]:
    """Pass the chunks on as they come, and then say which passages the whole answer cites."""
    # `RunnablePassthrough.assign` would do, but its branches share a lock over the stream, so that
    # tokens wait for later tokens.
    answer = ""
    context: list[Document] = []
    for chunk in chunks:
        answer += chunk.get("answer", "")
        context = chunk.get("context", context)
        yield AddableDict(chunk)
    yield AddableDict(citations=_citations(answer, context))


async def _acite(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[AddableDict]:
    answer = ""
    context: list[Document] = []
    async for chunk in chunks:
        answer += chunk.get("answer", "")
        context = chunk.get("context", context)
        yield AddableDict(chunk)
    yield AddableDict(citations=_citations(answer, context))


def _citations(answer: str, context: list[Document]) -> list[Citation]:
    numbers = cited(answer, len(context))
    return [Citation(number=n, document=context[n - 1]) for n in numbers]
