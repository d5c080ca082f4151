"""A whole run: what is in the report, a user's own retrievers, and a run that was killed."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from qwen3_core import Embedder, Reranker
from qwen3_retrieval.evaluation import (
    Dataset,
    Hit,
    Pair,
    Passage,
    Question,
    evaluate,
    load_dataset,
)
from qwen3_retrieval.evaluation.cache import Cache
from qwen3_retrieval.evaluation.metrics import evaluate_run
from qwen3_retrieval.evaluation.result import Latency, Point, Setting
from qwen3_retrieval.evaluation.significance import Estimate, lower_bound
from qwen3_retrieval.evaluation.sources import Matcher, as_search
from qwen3_retrieval.evaluation.sweep import frontier
from tests.conftest import ROOT, naming
from tests.evaluation.conftest import CORPUS, QUESTIONS, SETTINGS

NAMES = [
    "BM25",
    "dense, no instruction",
    "dense",
    "hybrid",
    "dense + rerank, no instruction",
    "dense + rerank",
    "hybrid + rerank",
]
TOY = Dataset(
    "toy",
    "python",
    [Passage(f"p{i}", f"Passage number {i}.", f"p{i}", f"file{i}.md") for i in range(4)],
    [Question("q0", "zero?", {"p0": 1}), Question("q1", "one?", {"p1": 1, "p2": 1})],
)


def test_systems_side_by_side(report):
    assert [system.name for system in report.systems] == NAMES
    by_name = {system.name: system for system in report.systems}
    for system in report.systems:
        assert set(system.metrics) == {
            "nDCG@10",
            "MRR@10",
            "success@1",
            "recall@6",
            "MAP@6",
        }
        for name, value in system.metrics.items():
            assert 0 <= value.low <= value.mean <= value.high <= 1
            assert value.mean == pytest.approx(np.mean(system.per_question[name]))
        total = system.latency["total"]
        assert 0 < total.p50 <= total.p95
        assert total.questions == SETTINGS.latency_questions
    # Reranking moves the candidates, and finds no others.
    assert by_name["dense"].metrics["recall@6"] == by_name["dense + rerank"].metrics["recall@6"]
    assert set(by_name["BM25"].latency) == {"bm25", "total"}
    assert set(by_name["hybrid + rerank"].latency) == {"bm25", "embed", "search", "rerank", "total"}
    assert by_name["dense"].index_bytes == 75 * 256 * 4
    assert by_name["BM25"].tokens == 0
    assert by_name["dense"].tokens < by_name["dense + rerank"].tokens
    # It is worth a look, not a coincidence: the tiny model knows this corpus's language.
    assert by_name["dense"].metrics["nDCG@10"].mean > 0.4


def test_metrics_are_those_of_the_components(report):
    """The dense system once more, by the embedder alone."""
    dataset = load_dataset(CORPUS, max_questions=QUESTIONS, model="tiny")
    embedder = Embedder("tiny", dtype="float32")
    documents = embedder.embed_documents([p.text for p in dataset.passages])
    scores = embedder.embed_queries([q.text for q in dataset.questions]) @ documents.T
    run = {
        q.id: list(dict.fromkeys(dataset.passages[i].unit for i in np.argsort(-row)[:6]))
        for q, row in zip(dataset.questions, scores, strict=True)
    }
    expected = evaluate_run({q.id: q.relevant for q in dataset.questions}, run, 6)
    dense = next(s for s in report.systems if s.name == "dense")
    for name, values in expected.items():
        assert dense.per_question[name] == pytest.approx(values.tolist())


def test_every_pair_is_compared(report):
    pairs = [(each.first, each.second) for each in report.comparisons]
    assert len(set(pairs)) == len(NAMES) * (len(NAMES) - 1) // 2
    by_name = {system.name: system.metrics["nDCG@10"].mean for system in report.systems}
    for each in report.comparisons:
        assert each.difference.mean == pytest.approx(by_name[each.second] - by_name[each.first])
        assert each.better + each.worse <= len(report.data.questions)


def test_sweep_and_recommendation(report):
    points = report.sweep.points
    axes = {axis: [p.value for p in points if p.axis == axis] for axis in {p.axis for p in points}}
    assert axes.pop("k") == ["none"] * 3 + ["2", "6"]
    assert axes.pop("dimensions") == ["32", "64", "128", "256"]
    assert sorted(set(axes.pop("instruction"))) == ["none", "question_answering", "web_search"]
    assert axes.pop("recommended") == ["recommended"]
    assert set(axes) <= {"max_length"}
    best = max(point.ndcg.mean for point in points if point.axis == "k")
    chosen = report.recommendation
    assert chosen.setting == points[-1].setting
    assert chosen.ndcg > best - SETTINGS.margin
    assert f"{chosen.ndcg:.3f}" in report.sweep.reason
    assert chosen.top_n in [each.top_n for each in report.sweep.top_n]
    widths = [p.index_bytes for p in points if p.axis == "dimensions"]
    assert widths == [75 * 4 * width for width in (32, 64, 128, 256)]


def test_frontier_is_what_nothing_beats():
    def point(p50: float, ndcg: float) -> Point:
        setting = Setting("dense", False, 5)
        return Point("k", "", "", setting, Estimate(ndcg, ndcg, ndcg), 1, Latency(p50, p50, 1), 0)

    points = [point(1, 0.5), point(2, 0.4), point(2, 0.6), point(9, 0.6), point(9, 0.9)]
    assert [p.frontier for p in frontier(points)] == [True, False, True, False, True]


def test_views_show_what_moved(report):
    dataset = load_dataset(CORPUS, max_questions=QUESTIONS, model="tiny")
    assert report.compared == ("dense", "dense + rerank")
    changes = [view.after - view.before for view in report.views]
    assert changes == sorted(changes)
    assert {view.id for view in report.views} == {q.id for q in dataset.questions}
    relevant = {q.id: set(q.relevant) for q in dataset.questions}
    for view in report.views:
        after = [move.after for move in view.moves if move.after]
        assert sorted(after) == list(range(1, 7))
        assert sorted(m.before for m in view.moves if m.before) == list(range(1, 7))
        scores = [m.score for m in sorted(view.moves, key=lambda m: m.after or 99) if m.after]
        assert scores == sorted(scores, reverse=True)
        for move in view.moves:
            assert move.relevant == (move.passage.unit in relevant[view.id])
        # Also what was not found is there to be read.
        assert {m.passage.unit for m in view.moves if m.relevant} == relevant[view.id]


def test_threshold_keeps_what_it_says(report):
    scores, cosines = report.distributions
    assert (scores.score, cosines.score) == ("log-odds", "cosine")
    # Each question has one answer; those that lose theirs are few enough.
    answers = [m for v in report.views for m in v.moves if m.relevant and m.after]
    lost = [m.passage.unit for m in answers if m.score < scores.suggested]
    assert (
        lower_bound(np.array([-1.0] * len(lost) + [0.0] * (QUESTIONS - len(lost))))
        > -SETTINGS.margin
    )
    assert scores.suggested in [t.score for t in scores.thresholds]
    assert report.recommendation.score_threshold in (None, scores.suggested)
    kept = [t.relevant for t in scores.thresholds]
    assert kept == sorted(kept, reverse=True)
    found = sum(m.relevant and m.after is not None for v in report.views for m in v.moves)
    assert sum(scores.relevant) == found
    assert sum(scores.relevant) + sum(scores.other) == QUESTIONS * 6


def test_report_is_json(report):
    data = json.loads(report.to_json())
    assert data["systems"][0]["metrics"]["nDCG@10"].keys() == {"mean", "low", "high"}
    assert data["data"]["synthetic"] == "headings"
    assert data["command"]["pair"]["reranker"] == "tiny"


def test_second_pair_stands_beside_the_first(cache, long_pair):
    """The same weights under another name: the same numbers, and no difference between them."""
    second = Pair(str(long_pair["embedding"]), reranker=str(long_pair["reranker"]), dtype="float32")
    found = evaluate(
        load_dataset(CORPUS, max_questions=4, model="tiny"),
        replace(SETTINGS, k=2, second=second, cache=cache, sweep=False, latency_questions=1),
    )
    assert found.sweep is None
    by_name = {system.name: system for system in found.systems}
    ours, theirs = ([f"{name} ({pair})" for name in NAMES[1:]] for pair in ("tiny", "embedding"))
    assert list(by_name) == ["BM25", *ours, *theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert by_name[our].metrics == by_name[their].metrics
    p = {(each.first, each.second): each.p for each in found.comparisons}
    assert p["dense (tiny)", "dense (embedding)"] == 1


def test_a_function_is_a_retriever(cache):
    answers = {"zero?": ["p3", "p0"], "one?": ["p2", "nowhere", "p1"]}
    found = evaluate(
        TOY,
        replace(SETTINGS, cache=cache, sweep=False),
        retrievers={"mine": lambda q: [Hit(text="", id=i) for i in answers[q]]},
    )
    mine = found.systems[-1]
    assert mine.name == "mine"
    assert mine.per_question["MRR@10"] == [0.5, 1.0]
    assert mine.per_question["recall@4"] == [1.0, 1.0]
    assert mine.unmatched == pytest.approx(1 / 5)
    assert ("dense", "mine") in [(each.first, each.second) for each in found.comparisons]


@pytest.mark.parametrize("hits", [[], [Hit("Something else.", id="x")]])
def test_a_retriever_of_other_texts_gets_a_warning(cache, hits):
    count = len(hits) * len(TOY.questions)
    with pytest.warns(UserWarning, match=naming("'mine'", str(count) if count else "nothing")):
        found = evaluate(
            TOY, replace(SETTINGS, cache=cache, sweep=False), retrievers={"mine": lambda q: hits}
        )
    assert found.systems[-1].metrics["nDCG@10"].mean == 0


@pytest.mark.parametrize(
    ("hit", "unit"),
    [
        (Hit("", id="p1"), "p1"),
        (Hit("", metadata={"id": "p2"}), "p2"),
        (Hit("Passage  number\n3."), "p3"),
        (Hit("# Title\n\nPassage number 3. And more."), "p3"),
        (Hit("number 2"), "p2"),
        (Hit("something else", id="x", metadata={"source": "p/q.md"}), None),
        (Hit(""), None),
    ],
)
def test_what_a_hit_is_matched_to(hit, unit):
    assert Matcher(TOY)(hit) == unit


def test_a_file_is_matched_by_the_end_of_its_path():
    passages = [replace(p, unit=p.source) for p in TOY.passages]
    matcher = Matcher(Dataset("x", "python", passages, [Question("q", "?", {"file1.md": 1})]))
    assert matcher(Hit("other", metadata={"source": "/home/me/docs/file1.md"})) == "file1.md"
    assert matcher(Hit("other", metadata={"file_path": "C:\\docs\\file2.md"})) == "file2.md"
    assert matcher(Hit("other", metadata={"source": "otherfile1.md"})) is None


def test_langchain_retriever():
    documents = pytest.importorskip("langchain_core.documents")
    vectorstores = pytest.importorskip("langchain_core.vectorstores")
    from langchain_qwen3 import Qwen3Embeddings

    store = vectorstores.InMemoryVectorStore(Qwen3Embeddings(model="tiny", dtype="float32"))
    store.add_documents([documents.Document(p.text, id=p.id) for p in TOY.passages])
    hits = as_search(store.as_retriever(search_kwargs={"k": 2}))("Passage number 3.")
    assert Matcher(TOY)(hits[0]) == "p3"
    with pytest.raises(TypeError, match=naming("InMemoryVectorStore", "as_retriever()")):
        as_search(store)
    chain = pytest.importorskip("langchain_core.runnables").RunnableLambda(str.upper)
    with pytest.raises(TypeError, match="returned no list of documents"):
        as_search(chain)("what?")


def test_llama_index_retriever_and_query_engine():
    core = pytest.importorskip("llama_index.core")
    schema = pytest.importorskip("llama_index.core.schema")
    from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank

    nodes = [schema.TextNode(text=p.text, id_=p.id) for p in TOY.passages]
    index = core.VectorStoreIndex(nodes, embed_model=Qwen3Embedding(model="tiny", dtype="float32"))
    matcher = Matcher(TOY)
    hits = as_search(index.as_retriever(similarity_top_k=4))("Passage number 3.")
    assert matcher(hits[0]) == "p3"
    reranker = Qwen3Rerank(model="tiny", dtype="float32", top_n=2)
    engine = index.as_query_engine(
        llm=core.llms.MockLLM(), similarity_top_k=4, node_postprocessors=[reranker]
    )
    hits = as_search(engine)("Passage number 3.")
    scores = Reranker("tiny", dtype="float32").score(
        [p.text for p in TOY.passages], "Passage number 3."
    )
    assert [matcher(hit) for hit in hits] == [f"p{i}" for i in np.argsort(-scores)[:2]]
    with pytest.raises(
        TypeError, match=naming("VectorStoreIndex", "as_retriever()", "as_query_engine()")
    ):
        as_search(index)


def test_what_is_no_retriever():
    with pytest.raises(TypeError, match=naming("retriever", "Hits", "int")):
        as_search(3)


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
def test_a_run_that_was_killed_goes_on(cache, tmp_path, embedded):
    path = tmp_path / "cache"
    options = [
        *(str(CORPUS), "--model", "tiny", "--dtype", "float32", "--cache", str(path)),
        *("--questions", "5", "--k", "6", "--latency-questions", "2", "--no-sweep"),
        *("--html", str(tmp_path / "report.html")),
    ]
    command = [sys.executable, "-m", "qwen3_retrieval.evaluation", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while entries(path) < 90:  # 75 passages, the questions, and some scores
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < until, "nothing happens"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = entries(path)
    dataset = load_dataset(CORPUS, max_questions=5, model="tiny")
    found = evaluate(dataset, replace(SETTINGS, cache=path, sweep=False))
    passages = {passage.text for passage in dataset.passages}
    assert passages.isdisjoint(embedded)  # they were there already
    assert entries(path) > kept
    undisturbed = evaluate(dataset, replace(SETTINGS, cache=cache, sweep=False))
    for ours, theirs in zip(found.systems, undisturbed.systems, strict=True):
        assert ours.metrics == theirs.metrics


def entries(path) -> int:
    if not path.exists():
        return 0
    with Cache(path) as cache:
        (count,) = cache._database.execute("SELECT count(*) FROM entries").fetchone()
    return int(count)
