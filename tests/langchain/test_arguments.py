"""Arguments for the first stage: each one narrows the search, or is refused by its name."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_classic.chains import create_history_aware_retriever
from langchain_classic.retrievers import (
    ContextualCompressionRetriever,
    EnsembleRetriever,
    MergerRetriever,
    MultiQueryRetriever,
    ParentDocumentRetriever,
)
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    ConfigurableFieldSpec,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    ensure_config,
)
from langchain_core.stores import InMemoryStore
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_milvus import Milvus
from langchain_text_splitters import CharacterTextSplitter
from langgraph.graph import START, StateGraph
from pydantic import ValidationError

from langchain_qwen3 import (
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
    create_rag_chain,
    milvus_kwargs,
)
from tests.conftest import naming
from tests.langchain.conftest import call

QUESTION = "When does the contract end?"
ONLY = "customer == 'acme'"
ACME = [{"customer": "acme"}, {"customer": "bolt"}]
CONTRACTS = ["Acme's contract ends in May.", "Bolt's contract ends in June."]

FUNCS = ("invoke", "ainvoke")
FILTER_NAMES = ("exp", "string_expr", "filter", "filters", "where", "Filter")
"""What a Milvus store takes without a word, and uses not."""


@pytest.fixture(scope="module")
def one_milvus(tmp_path_factory, embeddings: Qwen3Embeddings) -> Milvus:
    path = tmp_path_factory.mktemp("milvus") / "filters.db"
    store = Milvus(**milvus_kwargs(embeddings, uri=str(path)))
    store.add_texts(CONTRACTS, ids=["1", "2"], metadatas=ACME)
    return store


@pytest.fixture
def milvus(one_milvus: Milvus) -> Milvus:
    one_milvus._async_milvus_client = None  # it belongs to one event loop, a test has its own
    return one_milvus


@pytest.fixture(scope="module")
def in_memory(embeddings: Qwen3Embeddings) -> InMemoryVectorStore:
    store = InMemoryVectorStore(embeddings)
    store.add_texts(CONTRACTS, metadatas=ACME)
    return store


@pytest.fixture
def over(milvus: Milvus, reranker: Qwen3Reranker) -> Callable[..., Qwen3TwoStageRetriever]:
    """A two-stage retriever over a first stage made from Milvus's retriever."""

    def make(stage: Callable[[Any], Any], **settings: Any) -> Qwen3TwoStageRetriever:
        first = stage(milvus.as_retriever())
        return Qwen3TwoStageRetriever(retriever=first, reranker=reranker, **settings)

    return make


@pytest.fixture
def retriever(milvus: Milvus, reranker: Qwen3Reranker) -> Qwen3TwoStageRetriever:
    return Qwen3TwoStageRetriever(vectorstore=milvus, reranker=reranker)


def customers(found: list[Document]) -> set[str]:
    return {document.metadata["customer"] for document in found}


class Naming(BaseRetriever):
    """A retriever of one's own that names its argument."""

    first: Any

    def _get_relevant_documents(self, query, *, run_manager, expr=None):
        return self.first.invoke(query, expr=expr)

    async def _aget_relevant_documents(self, query, *, run_manager, expr=None):
        return await self.first.ainvoke(query, expr=expr)


class Swallowing(BaseRetriever):
    """A retriever of one's own that takes any argument and uses none."""

    first: Any

    def _get_relevant_documents(self, query, *, run_manager, **kwargs):
        return self.first.invoke(query)


class Bare(BaseRetriever):
    first: Any

    def _get_relevant_documents(self, query, *, run_manager):
        return self.first.invoke(query)


def multi_query(first: Any) -> MultiQueryRetriever:
    return MultiQueryRetriever.from_llm(first, FakeListChatModel(responses=[QUESTION]))


def compression(first: Any) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(
        base_compressor=Qwen3Reranker(model="tiny"), base_retriever=first
    )


def ensemble(first: Any) -> EnsembleRetriever:
    return EnsembleRetriever(retrievers=[first], weights=[1])


def parent(first: Any) -> ParentDocumentRetriever:
    return ParentDocumentRetriever(
        vectorstore=first.vectorstore,
        docstore=InMemoryStore(),
        child_splitter=CharacterTextSplitter(),
    )


def taking(first: Any) -> Callable[..., list[Document]]:
    def search(query: str, expr: str | None = None) -> list[Document]:
        found: list[Document] = first.invoke(query, expr=expr)
        return found

    return search


ARRIVES: dict[str, Callable[[Any], Any]] = {
    "the store's": lambda first: first,
    "mmr": lambda first: first.model_copy(update={"search_type": "mmr"}),
    "bound": lambda first: first.bind(k=2),
    "retried": lambda first: first.with_retry(),
    "configurable": lambda first: first.configurable_fields(
        search_kwargs=ConfigurableField(id="search_kwargs")
    ),
    "compression": compression,
    "head of a chain": lambda first: first | RunnableLambda(list),
    "fallbacks": lambda first: first.with_fallbacks([first]),
    "function": lambda first: RunnableLambda(taking(first)),
    "own, named": lambda first: Naming(first=first),
    "two-stage": lambda first: Qwen3TwoStageRetriever(
        retriever=first, reranker=Qwen3Reranker(model="tiny")
    ),
}
DROPPED: dict[str, Callable[[Any], Any]] = {
    "ensemble": ensemble,
    "merger": lambda first: MergerRetriever(retrievers=[first]),
    "multi-query": multi_query,
    "parent": parent,
    "compression of an ensemble": lambda first: compression(ensemble(first)),
    "fallback to an ensemble": lambda first: first.with_fallbacks([ensemble(first)]),
    "behind a function": lambda first: RunnableLambda(str.strip) | first,
    "function": lambda first: RunnableLambda(lambda q: first.invoke(q)),
    "function of any": lambda first: RunnableLambda(lambda q, **kwargs: first.invoke(q)),
    "own": lambda first: Bare(first=first),
    "own, any argument": lambda first: Swallowing(first=first),
    "two-stage of an ensemble": lambda first: Qwen3TwoStageRetriever(
        retriever=ensemble(first), reranker=Qwen3Reranker(model="tiny")
    ),
}


def ways(retriever: Any, **arguments: Any) -> Iterator[Any]:
    """The ways to hand a call's arguments over, each called with the question."""
    yield lambda func: call(retriever, func, QUESTION, **arguments)
    yield lambda func: call(retriever.bind(**arguments), func, QUESTION)
    yield lambda func: call(retriever.bind(**arguments).with_config(tags=["a"]), func, QUESTION)
    yield lambda func: call(retriever, func, QUESTION, search_kwargs=arguments)


@pytest.mark.parametrize("stage", ARRIVES.values(), ids=ARRIVES)
@pytest.mark.parametrize("func", FUNCS)
async def test_a_filter_reaches_the_search(over, stage, func):
    retriever = over(stage)
    assert customers(await call(retriever, func, QUESTION)) == {"acme", "bolt"}
    for way in ways(retriever, expr=ONLY):
        assert customers(await way(func)) == {"acme"}
    own = over(stage, search_kwargs={"expr": ONLY})
    assert customers(await call(own, func, QUESTION)) == {"acme"}


@pytest.mark.parametrize("stage", DROPPED.values(), ids=DROPPED)
@pytest.mark.parametrize("func", FUNCS)
async def test_a_filter_that_would_be_dropped_is_refused(over, stage, func):
    retriever = over(stage)
    for way in ways(retriever, expr=ONLY):
        with pytest.raises(TypeError, match="expr= would not reach the search"):
            await way(func)
    with pytest.raises(ValidationError, match="search_kwargs: expr= would not reach the search"):
        over(stage, search_kwargs={"expr": ONLY})


def test_a_first_stage_that_drops_what_is_bound_to_it_is_refused(over):
    with pytest.raises(
        ValidationError,
        match=naming(
            "search_kwargs: expr=", "EnsembleRetriever", "as_retriever(search_kwargs={'expr': ...})"
        ),
    ):
        over(lambda first: ensemble(first).bind(expr=ONLY))


@pytest.mark.parametrize("name", FILTER_NAMES)
@pytest.mark.parametrize("func", FUNCS)
async def test_milvus_is_given_no_name_that_it_ignores(retriever, name, func):
    for way in ways(retriever, **{name: ONLY}):
        with pytest.raises(TypeError, match=rf"{name}= would not .* did you mean expr=\?"):
            await way(func)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("topk", "k"), ("limit", "k"), ("threshold", "score_threshold"), ("top_k", "k")],
)
def test_a_setting_under_another_name_is_refused(retriever, name, meant):
    with pytest.raises(TypeError, match=rf"unknown argument '{name}': did you mean {meant}\?"):
        retriever.invoke(QUESTION, **{name: 1})


@pytest.mark.parametrize("name", [*FILTER_NAMES, "fetch_k", "ranker_type", "nonsense"])
def test_a_wrong_name_in_the_constructor_is_refused(milvus, reranker, name):
    wrong = {name: ONLY}
    with pytest.raises(ValidationError, match=f"search_kwargs: {name}= would not reach"):
        Qwen3TwoStageRetriever(vectorstore=milvus, reranker=reranker, search_kwargs=wrong)
    with pytest.raises(ValidationError, match=f"search_kwargs: {name}= would not reach"):
        Qwen3TwoStageRetriever(
            retriever=milvus.as_retriever(search_kwargs=wrong), reranker=reranker
        )


def test_a_copy_is_checked_too(retriever):
    copy = retriever.model_copy(update={"search_kwargs": {"expr": ONLY}})
    assert customers(copy.invoke(QUESTION)) == {"acme"}
    with pytest.raises(ValidationError, match="exp= would not reach the search"):
        retriever.model_copy(update={"search_kwargs": {"exp": ONLY}})
    with pytest.raises(ValidationError, match="unknown argument 'search_kwarg'"):
        retriever.model_copy(update={"search_kwarg": {"expr": ONLY}})


def test_search_kwargs_changed_afterwards_are_checked_in_the_call(retriever):
    changed = retriever.model_copy()
    changed.search_kwargs = {"exp": ONLY}
    with pytest.raises(TypeError, match="exp= would not reach the search"):
        changed.invoke(QUESTION)


def test_a_calls_search_kwargs_are_a_dictionary_without_k(retriever):
    with pytest.raises(TypeError, match=r"search_kwargs .*got str"):
        retriever.invoke(QUESTION, search_kwargs=ONLY)
    with pytest.raises(TypeError, match="search_kwargs holds 'k'"):
        retriever.invoke(QUESTION, search_kwargs={"k": 5})


def test_what_milvus_honours_is_handed_on(retriever):
    assert retriever.invoke(QUESTION, partition_names=["_default"], offset=2) == []
    assert len(retriever.invoke(QUESTION, param={"params": {"ef": 20}}, timeout=30)) == 2


def test_a_hybrid_search_has_other_arguments(tmp_path, embeddings, reranker):
    store = Milvus(**milvus_kwargs(embeddings, uri=str(tmp_path / "h.db"), hybrid=True))
    store.add_texts(CONTRACTS, ids=["1", "2"], metadatas=ACME)
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker)
    assert customers(retriever.invoke(QUESTION, expr=ONLY, fetch_k=5)) == {"acme"}
    with pytest.raises(TypeError, match="ignore_growing= would not reach the search"):
        retriever.invoke(QUESTION, ignore_growing=True)


# Other stores


def test_a_store_that_names_its_filter_far_down(in_memory, reranker):
    retriever = Qwen3TwoStageRetriever(vectorstore=in_memory, reranker=reranker)
    only = lambda document: document.metadata["customer"] == "acme"  # noqa: E731
    assert customers(retriever.invoke(QUESTION, filter=only)) == {"acme"}
    for name in ("expr", "filters", "where"):
        with pytest.raises(TypeError, match=rf"{name}= would not .* did you mean filter=\?"):
            retriever.invoke(QUESTION, None, **{name: only})
    with pytest.raises(TypeError, match="fetch_k= would not reach the search"):
        retriever.invoke(QUESTION, fetch_k=3)
    mmr = Qwen3TwoStageRetriever(
        retriever=in_memory.as_retriever(search_type="mmr"), reranker=reranker
    )
    assert len(mmr.invoke(QUESTION, fetch_k=2)) == 2


class Opaque(VectorStore):
    """A store that takes any argument and names none."""

    def similarity_search(self, query, k=4, **kwargs):
        return [Document(text) for text in CONTRACTS]

    @classmethod
    def from_texts(cls, texts, embedding, metadatas=None, **kwargs):
        raise NotImplementedError


def test_a_store_that_names_nothing_takes_nothing_of_us(reranker):
    retriever = Qwen3TwoStageRetriever(vectorstore=Opaque(), reranker=reranker)
    assert len(retriever.invoke(QUESTION)) == 2
    with pytest.raises(TypeError, match=r"filter= would not .*as_retriever\(search_kwargs="):
        retriever.invoke(QUESTION, filter="x")
    way_out = Opaque().as_retriever(search_kwargs={"filter": "x"})
    assert len(Qwen3TwoStageRetriever(retriever=way_out, reranker=reranker).invoke(QUESTION)) == 2


class Forgetful(InMemoryVectorStore):
    """A store whose search takes any argument and hands none on."""

    def similarity_search(self, query, k=4, **kwargs):
        return [document for document, _ in self.similarity_search_with_score(query, k)]


def test_an_argument_reaches_only_the_method_that_searches(embeddings, reranker):
    store = Forgetful(embeddings)
    store.add_texts(CONTRACTS, metadatas=ACME)
    only = lambda document: document.metadata["customer"] == "acme"  # noqa: E731
    scored = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker)
    assert customers(scored.invoke(QUESTION, filter=only)) == {"acme"}
    for of in (
        Qwen3TwoStageRetriever(retriever=store.as_retriever(), reranker=reranker),
        scored.model_copy(update={"score_metadata": False}),
    ):
        assert customers(of.invoke(QUESTION)) == {"acme", "bolt"}
        with pytest.raises(TypeError, match=r"filter= would not .*as_retriever\(search_kwargs="):
            of.invoke(QUESTION, filter=only)


# For a chain or an agent that is already built


FIELD = ConfigurableField(id="search_kwargs")
MINE: Any = {"configurable": {"search_kwargs": {"expr": ONLY}}}


def chain_of(retriever: Any) -> Any:
    return create_rag_chain(retriever, FakeListChatModel(responses=["In May [1]."] * 4))


@pytest.mark.parametrize("func", FUNCS)
async def test_a_config_narrows_a_chain_that_is_built(retriever, func):
    chain = chain_of(retriever.configurable_fields(search_kwargs=FIELD))
    assert customers((await call(chain, func, QUESTION, MINE))["context"]) == {"acme"}
    assert customers((await call(chain, func, QUESTION))["context"]) == {"acme", "bolt"}
    wrong = {"configurable": {"search_kwargs": {"exp": ONLY}}}
    with pytest.raises(ValidationError, match="exp= would not reach the search"):
        await call(chain, func, QUESTION, wrong)


@pytest.mark.parametrize("name", ["expr", "filter", "search_kwargs", "k", "top_n"])
@pytest.mark.parametrize("func", FUNCS)
async def test_a_filter_in_the_chains_input_is_refused(retriever, name, func):
    with pytest.raises(ValueError, match=naming(f"'{name}'", "configurable_fields(")):
        await call(chain_of(retriever), func, {"question": QUESTION, name: ONLY})


def test_a_filter_in_the_input_of_a_chain_that_rewrites_is_refused_too(retriever):
    llm = FakeListChatModel(responses=[QUESTION])
    for message, is_read in (("{input}", False), ("{input} {filter}", True)):
        rewrite = ChatPromptTemplate.from_messages([("human", message)])
        chain = chain_of(create_history_aware_retriever(llm, retriever, rewrite))
        asked = {"question": QUESTION, "filter": ONLY, "chat_history": [("human", "Hi")]}
        if is_read:
            assert chain.invoke(asked)["answer"]
            continue
        with pytest.raises(
            ValueError, match=naming("'filter'", "configurable_fields(search_kwargs=...)")
        ):
            chain.invoke(asked)


def test_a_function_before_a_prompt_may_read_the_input(retriever, milvus):
    def chain(key: str, way: Any) -> Any:
        rewrite = ChatPromptTemplate.from_template("{question}") | (lambda _: QUESTION) | retriever
        return chain_of(RunnableBranch((lambda given: key not in given, rewrite), way))

    def by_filter(given):
        only = given["filter"]
        return milvus.similarity_search(QUESTION, expr=only)

    def by_another_name(given):
        return milvus.similarity_search(QUESTION, expr=given["only"])

    for key, way in (("filter", by_filter), ("only", by_another_name)):
        found = chain(key, way).invoke({"question": QUESTION, key: ONLY})
        assert customers(found["context"]) == {"acme"}
    with pytest.raises(ValueError, match=naming("'filter'", "give that key another name")):
        chain("only", by_another_name).invoke({"question": QUESTION, "filter": ONLY})


@pytest.mark.parametrize("func", FUNCS)
async def test_an_argument_of_the_chains_call_is_refused(retriever, func):
    with pytest.raises(TypeError, match=r"passes no expr on .*retriever\.bind"):
        await call(chain_of(retriever), func, QUESTION, expr=ONLY)


@pytest.mark.parametrize("func", FUNCS)
async def test_a_fallback_that_would_drop_a_filter_is_not_called(retriever, milvus, func):
    safe = retriever.with_fallbacks([ensemble(milvus.as_retriever())])
    assert customers(await call(safe, func, QUESTION, expr=ONLY)) == {"acme"}
    with pytest.raises(TypeError, match="filter= would not reach the search"):
        await call(safe, func, QUESTION, filter=ONLY)


@pytest.mark.parametrize("func", FUNCS)
async def test_a_fallback_gets_the_filter_that_it_takes(milvus, reranker, func):
    def fail(_: str, expr: str = "") -> list[Document]:
        msg = f"down: {expr}"
        raise ConnectionError(msg)

    broken = Qwen3TwoStageRetriever(retriever=RunnableLambda(fail), reranker=reranker)
    safe = broken.with_fallbacks([milvus.as_retriever()])
    assert customers(await call(safe, func, QUESTION, expr=ONLY)) == {"acme"}
    unsafe = broken.with_fallbacks([ensemble(milvus.as_retriever())])
    with pytest.raises(ConnectionError, match="down: customer"):
        await call(unsafe, func, QUESTION, expr=ONLY)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("expr", r"search_kwargs=\{'expr': \.\.\.\}"),
        ("filter", r"search_kwargs=\{'filter': \.\.\.\}"),
        ("score_threshold", r"Qwen3Reranker\(score_threshold=\.\.\.\)"),
        ("search_type", r"store\.as_retriever\(search_type=\.\.\.\)"),
    ],
)
def test_an_unknown_setting_says_where_it_belongs(milvus, reranker, name, place):
    with pytest.raises(ValidationError, match=f"unknown argument '{name}': .*{place}"):
        Qwen3TwoStageRetriever(**{"vectorstore": milvus, "reranker": reranker, name: ONLY})


def test_a_filter_beside_search_kwargs_is_refused(milvus):
    with pytest.raises(TypeError, match=r"ignore expr=: .* search_kwargs=\{'expr'"):
        milvus.as_retriever(expr=ONLY)
    assert milvus.as_retriever(search_type="mmr", search_kwargs={"k": 2}).search_type == "mmr"


def test_an_input_that_the_prompt_reads_may_have_a_filters_name(retriever):
    prompt = ChatPromptTemplate.from_template("{context} {question} {filter}")
    llm = FakeListChatModel(responses=["In May [1]."])
    chain = create_rag_chain(retriever, llm, prompt=prompt)
    assert chain.invoke({"question": QUESTION, "filter": "short"})["answer"] == "In May [1]."


def test_a_config_narrows_an_agents_tool(retriever):
    use = {"name": "search", "args": {"query": QUESTION}, "id": "1", "type": "tool_call"}

    def tool(of: Any) -> Any:
        return create_retriever_tool(
            of, "search", "Searches.", response_format="content_and_artifact"
        )

    configurable = retriever.configurable_fields(search_kwargs=FIELD)
    assert customers(tool(configurable).invoke(use, MINE).artifact) == {"acme"}
    assert customers(tool(retriever.bind(expr=ONLY)).invoke(use).artifact) == {"acme"}
    with pytest.raises(TypeError, match="configurable'] holds search_kwargs"):
        tool(retriever).invoke(use, MINE)


def test_a_config_reaches_the_members_of_an_ensemble(over):
    members = over(lambda first: ensemble(first.configurable_fields(search_kwargs=FIELD)))
    assert customers(members.invoke(QUESTION, MINE)) == {"acme"}


@pytest.mark.parametrize("name", ["search_kwargs", "expr", "Filter", "where", "k", "top_n"])
@pytest.mark.parametrize("func", FUNCS)
async def test_a_config_that_nothing_reads_is_refused(retriever, over, name, func):
    config: Any = {"configurable": {name: ONLY}}
    plain = retriever.vectorstore.as_retriever()
    chains = chain_of(retriever), chain_of(plain)
    for of in (retriever, retriever.with_config(config), over(ensemble), *chains):
        with pytest.raises(TypeError, match=rf"configurable'\] holds {name}"):
            await call(of, func, QUESTION, config)


def test_a_config_that_was_declared_reaches_the_search(retriever):
    best: Any = {"configurable": {"top_n": 1}}
    declared = retriever.configurable_fields(top_n=ConfigurableField("top_n"))
    assert len(declared.invoke(QUESTION, best)) == 1
    plain = retriever.vectorstore.as_retriever().configurable_fields(search_kwargs=FIELD)
    assert customers(chain_of(plain).invoke(QUESTION, MINE)["context"]) == {"acme"}


def test_other_entries_of_a_config_are_left_alone(retriever):
    config: Any = {"configurable": {"thread_id": "1", "expr": ONLY}}
    assert len(retriever.invoke(QUESTION, {"configurable": {"thread_id": "1"}})) == 2
    store = retriever.vectorstore

    def search(question: str, config: Any) -> list[Document]:
        found: list[Document] = store.similarity_search(
            question, expr=config["configurable"]["expr"]
        )
        return found

    found = chain_of(RunnableLambda(search)).invoke(QUESTION, config)["context"]
    assert customers(found) == {"acme"}


@pytest.mark.parametrize("func", FUNCS)
async def test_an_argument_of_the_call_counts_as_read_from_the_config(retriever, func):
    config: Any = {"configurable": {"k": 5, "top_n": 1, "filter": ONLY}}
    given = {"k": 5, "top_n": 2, "expr": ONLY}
    assert customers(await call(retriever, func, QUESTION, config, **given)) == {"acme"}
    assert customers(await call(retriever.bind(**given), func, QUESTION, config)) == {"acme"}
    assert customers(await call(retriever, func, QUESTION, MINE, expr=ONLY)) == {"acme"}
    assert await call(retriever, func, QUESTION, MINE, search_kwargs={})
    with pytest.raises(TypeError, match=r"configurable'\] holds filter"):
        await call(retriever, func, QUESTION, config, k=5, top_n=1, expr="customer == 'bolt'")


def test_a_graphs_config_leaves_nodes_that_pass_the_argument_alone(over):
    retriever = over(compression)

    def node(state: Any, config: RunnableConfig) -> Any:
        return {"found": retriever.invoke(QUESTION, k=config["configurable"]["k"])}

    def dropping(state: Any) -> Any:
        return {"found": retriever.invoke(QUESTION)}

    for function in (node, dropping):
        graph: Any = StateGraph(dict)
        graph.add_node("search", function)
        graph.add_edge(START, "search")
        compiled = graph.compile()
        config: RunnableConfig = {"configurable": {"k": 1}}
        if function is node:
            assert len(compiled.invoke({}, config)["found"]) == 1
            continue
        with pytest.raises(TypeError, match=r"configurable'\] holds k"):
            compiled.invoke({}, config)


def test_a_config_that_equals_what_a_retriever_does_is_accepted(milvus, reranker):
    own: dict[str, Any] = {"k": 1, "expr": ONLY}
    first = milvus.as_retriever(search_kwargs=own)
    two_stage = Qwen3TwoStageRetriever(retriever=first, reranker=reranker)
    chains = chain_of(first), chain_of(multi_query(first)), chain_of(first.bind(k=1)), two_stage
    for of in chains:
        for same in ({"search_kwargs": own}, {"k": 1}, {"filter": ONLY}):
            assert of.invoke(QUESTION, {"configurable": same})
        for other in ({"search_kwargs": {"k": 1}}, {"filter": ""}):
            with pytest.raises(TypeError, match=r"configurable'\] holds"):
                of.invoke(QUESTION, {"configurable": other})
    both = ensemble(first)
    both.retrievers.append(milvus.as_retriever())
    with pytest.raises(TypeError, match=r"configurable'\] holds filter"):
        chain_of(both).invoke(QUESTION, {"configurable": {"filter": ONLY}})
    other_k = two_stage.model_copy(update={"k": 2})
    with pytest.raises(TypeError, match=r"configurable'\] holds k"):
        other_k.invoke(QUESTION, {"configurable": {"k": 1}})


@pytest.mark.parametrize("func", FUNCS)
@pytest.mark.parametrize(
    "wrapper", [compression, lambda first: multi_query(compression(first)), ensemble]
)
async def test_a_config_reaches_what_a_wrapper_holds(over, milvus, wrapper, func):
    declared = milvus.as_retriever().configurable_fields(search_kwargs=FIELD)
    found = await call(chain_of(wrapper(declared)), func, QUESTION, MINE)
    assert customers(found["context"]) == {"acme"}
    two_stage = over(lambda _: wrapper(declared))
    assert customers(await call(two_stage, func, QUESTION, MINE)) == {"acme"}
    with pytest.raises(TypeError, match=r"configurable'\] holds search_kwargs"):
        await call(over(wrapper), func, QUESTION, MINE)
    with pytest.raises(TypeError, match=r"configurable'\] holds search_kwargs"):
        await call(chain_of(wrapper(milvus.as_retriever())), func, QUESTION, MINE)


@pytest.mark.parametrize("func", FUNCS)
async def test_a_function_that_takes_the_config_may_read_it(over, func):
    def make(first: Any) -> Any:
        def search(question: str, config: RunnableConfig) -> list[Document]:
            found: list[Document] = first.invoke(question, expr=config["configurable"]["expr"])
            return found

        return RunnableLambda(search)

    config = {"configurable": {"expr": ONLY}}
    assert customers(await call(over(make), func, QUESTION, config)) == {"acme"}
    with pytest.raises(TypeError, match=r"configurable'\] holds expr"):
        await call(over(lambda first: RunnableLambda(taking(first))), func, QUESTION, config)


@pytest.mark.parametrize("func", FUNCS)
async def test_a_declared_id_is_never_refused(retriever, func):
    for value in (1, "1"):
        config: Any = {"configurable": {"k": value}}
        declared = retriever.configurable_fields(top_n=ConfigurableField("k"))
        assert len(await call(declared, func, QUESTION, config)) == 1
        assert len(await call(declared.with_config(config), func, QUESTION)) == 1
        assert len((await call(chain_of(declared), func, QUESTION, config))["context"]) == 1
        more = declared.configurable_fields(search_kwargs=ConfigurableField("filter"))
        config["configurable"]["filter"] = {"expr": "customer == 'bolt'"}
        assert customers(await call(more, func, QUESTION, config)) == {"bolt"}
        with pytest.raises(TypeError, match=r"configurable'\] holds filter"):
            await call(declared, func, QUESTION, config)
    with pytest.raises(TypeError, match=r"configurable'\] holds k"):
        await call(retriever, func, QUESTION, {"configurable": {"k": 1}})


@pytest.mark.parametrize("func", FUNCS)
async def test_a_fallback_that_would_drop_a_config_is_not_called(retriever, over, milvus, func):
    safe = retriever.with_fallbacks([milvus.as_retriever()])
    for of in (safe, over(lambda _: safe), over(lambda _: ensemble(safe))):
        with pytest.raises(TypeError, match=r"configurable'\] holds expr"):
            await call(of, func, QUESTION, {"configurable": {"expr": ONLY}})
        assert customers(await call(of, func, QUESTION)) == {"acme", "bolt"}


class Holding(BaseRetriever):
    """A retriever of one's own that holds another out of sight."""

    holder: Any

    def _get_relevant_documents(self, query, *, run_manager):
        return self.holder.retriever.invoke(query)


def test_a_retriever_that_cannot_be_seen_through_may_read_the_config(over, milvus):
    declared = milvus.as_retriever().configurable_fields(search_kwargs=FIELD)
    hidden = Holding(holder=SimpleNamespace(retriever=declared))
    assert customers(chain_of(hidden).invoke(QUESTION, MINE)["context"]) == {"acme"}
    assert customers(over(lambda _: hidden).invoke(QUESTION, MINE)) == {"acme"}


class Reading(BaseRetriever):
    """A retriever of one's own that reads the config by itself."""

    first: Any

    def _get_relevant_documents(self, query, *, run_manager):
        return self.first(query, expr=ensure_config()["configurable"].get("expr"))


class Declaring(Reading):
    @property
    def config_specs(self):
        return [ConfigurableFieldSpec(id="expr", annotation=str)]


def test_a_retriever_of_ones_own_declares_what_it_reads(over):
    config: Any = {"configurable": {"expr": ONLY}}
    declaring = over(lambda first: Declaring(first=taking(first)))
    assert customers(declaring.invoke(QUESTION, config)) == {"acme"}
    assert customers(declaring.invoke(QUESTION)) == {"acme", "bolt"}
    with pytest.raises(TypeError, match=r"holds expr.* Reading .*config_specs"):
        over(lambda first: Reading(first=taking(first))).invoke(QUESTION, config)


def test_a_config_that_one_member_of_an_ensemble_drops_is_refused(retriever, over):
    def both(first: Any) -> Any:
        declared = first.configurable_fields(search_kwargs=FIELD)
        return EnsembleRetriever(retrievers=[declared, retriever], weights=[1, 1])

    with pytest.raises(TypeError, match=r"configurable'\] holds search_kwargs"):
        over(both).invoke(QUESTION, MINE)


def test_a_name_that_another_component_declares_is_left_alone(retriever, milvus):
    llm = FakeListChatModel(responses=["In May."]).configurable_fields(
        responses=ConfigurableField("k")
    )
    config: Any = {"configurable": {"k": ["In June."]}}
    for first in (retriever, milvus.as_retriever()):
        assert create_rag_chain(first, llm).invoke(QUESTION, config)["answer"] == "In June."
        with pytest.raises(TypeError, match=r"configurable'\] holds k"):
            chain_of(first).invoke(QUESTION, config)
