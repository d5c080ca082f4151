"""`create_rag_chain`: a question answered by an LLM from retrieved passages, with citations."""

from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any, TypedDict, cast

from langchain_core.documents import Document
from langchain_core.language_models import LanguageModelLike
from langchain_core.messages import SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate
from langchain_core.retrievers import RetrieverLike
from langchain_core.runnables import (
    AddableDict,
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
)

from qwen3_core.rag import ANSWER_INSTRUCTIONS, cited, fence
from qwen3_core.validation import check_query

NO_PASSAGES = "No passages were found."
"""What the LLM reads in place of passages when the retriever returns none."""


class Citation(TypedDict):
    """One passage that the answer cites."""

    number: int
    """The passage's number in the prompt and in the answer, from 1."""

    document: Document
    """The passage: `context[number - 1]`."""


class RagAnswer(TypedDict):
    """What the chain returns."""

    question: str

    context: list[Document]
    """All passages that the LLM was given, in the order of their numbers."""

    answer: str
    """The LLM's text, with citations such as [1]."""

    citations: list[Citation]
    """The passages that the answer cites, each once, in order of first mention."""


def create_rag_chain(
    retriever: RetrieverLike,
    llm: LanguageModelLike,
    *,
    prompt: BasePromptTemplate[Any] | None = None,
) -> Runnable[str | Mapping[str, str], RagAnswer]:
    """A chain from a question to an answer, the passages it stands on, and its citations.

    Passages are numbered and fenced in tags that their own text cannot close, and the LLM is told
    not to follow what they say. Without passages it is told that there are none, so that it can say
    so rather than answer from memory.

    The chain is an ordinary Runnable: `invoke`, `batch`, `stream` and their async twins. `stream`
    yields dictionaries with one key each, `{"answer": "..."}` token by token; their sum is what
    `invoke` returns.

    Example:
        ```python
        chain = create_rag_chain(retriever, ChatOpenAI(model="gpt-5-mini"))
        result = chain.invoke("How is data stored?")
        for citation in result["citations"]:
            print(citation["number"], citation["document"].metadata)
        ```

    Args:
        retriever: Finds the passages, e.g. a `Qwen3TwoStageRetriever`.
        llm: A chat model or LLM, e.g. `ChatOpenAI`.
        prompt: In place of the standard one; its variables are `context` (the fenced passages, one
            string) and `question`.

    Returns:
        A Runnable that takes the question as a string, or as {"question": ...}, and returns a
        `RagAnswer`. It raises TypeError or ValueError for a question that is no string or blank.

    Raises:
        TypeError: If an argument is not what its name says.
        ValueError: If the prompt's variables are others than `context` and `question`.
    """
    for name, value in (("retriever", retriever), ("llm", llm)):
        if not isinstance(value, Runnable):
            msg = f"{name} must be a LangChain {name}, got {type(value).__name__}: {value!r:.80}"
            raise TypeError(msg)
    answer = RunnableLambda(_prompt_values) | _checked(prompt) | llm | StrOutputParser()
    chain = (
        RunnableLambda(_question)
        | RunnablePassthrough.assign(context=itemgetter("question") | retriever)
        | RunnablePassthrough.assign(answer=answer)
        | RunnableGenerator(_cite, _acite, name="citations")
    )
    named = chain.with_config(run_name="create_rag_chain")
    return cast("Runnable[str | Mapping[str, str], RagAnswer]", named)


def _checked(prompt: BasePromptTemplate[Any] | None) -> BasePromptTemplate[Any]:
    """The prompt to use, with the variables that it must have."""
    if prompt is None:
        return ChatPromptTemplate.from_messages(
            [SystemMessage(ANSWER_INSTRUCTIONS), ("human", "{context}\n\nQuestion: {question}")]
        )
    if not isinstance(prompt, BasePromptTemplate):
        msg = f"prompt must be a LangChain prompt template, got {type(prompt).__name__}"
        raise TypeError(msg)
    if set(prompt.input_variables) != {"context", "question"}:
        msg = (
            "prompt must have the variables context and question and no others (fill those with "
            f"prompt.partial()), but it has: {', '.join(prompt.input_variables) or 'none'}"
        )
        raise ValueError(msg)
    return prompt


def _question(value: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(value, Mapping):
        if "question" not in value:
            msg = f"the chain's input has no 'question' (its keys: {', '.join(map(str, value))})"
            raise ValueError(msg)
        value = value["question"]
    return {"question": check_query(value)}


def _prompt_values(state: dict[str, Any]) -> dict[str, str]:
    texts = [document.page_content for document in state["context"]]
    return {"context": fence(texts) if texts else NO_PASSAGES, "question": state["question"]}


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
