"""Whatever comes in, the outcome is a right result or an error that says what is wrong.

Each property runs briefly with the suite. The long form runs all of them for ten minutes:
`pytest -m nightly tests/security/test_fuzz.py`; FUZZ_SECONDS sets another time.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
import time
import unicodedata
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen3_core.common.validation import (
    check_dimensions,
    check_query,
    check_text,
    check_texts,
    check_threshold,
    check_top_n,
)
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.milvus import literal
from qwen3_core.model.packing import TokenSequence, Work, next_pack
from qwen3_core.prompts import CONTROL_TOKENS, resolve_instruction
from qwen3_core.rag import cited, fence
from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server, ServerError
from qwen3_core.remote import model as remote_model
from qwen3_core.remote.client import Client
from qwen3_core.remote.server import check_base_url, check_key
from qwen3_core.tokenizer import Qwen3Tokenizer
from qwen3_retrieval.documents.corpus import KINDS, SourceFile
from qwen3_retrieval.documents.cutting import (
    Cutter,
    split_at_headings,
    split_to_fit,
    tokenizer_of,
)
from qwen3_retrieval.documents.html import html_section
from qwen3_retrieval.documents.reading import read_sections
from qwen3_retrieval.documents.text import UnreadableError
from qwen3_retrieval.ingest.journal import Journal
from tests.conftest import TINY
from tests.growth import growth
from tests.remote.fake_server import embedder, reranker
from tests.security.corpus import QUERY, attacks

TEXT = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from([*CONTROL_TOKENS, *attacks("judge").values()]),
        st.sampled_from(["\u0338", "<", "\r\n", " ", "e\u0301", "🙂", "\x00", "{document}"]),
    ),
    max_size=6,
).map("".join)
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
"""Lone surrogates too."""
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, 1e300, -(2**63), 0, 1])
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
ANYTHING = JSON | ANY_TEXT | st.binary(max_size=8) | st.just(object())


@cache
def tokenizer() -> Qwen3Tokenizer:
    return Qwen3Tokenizer((TINY / "reranker" / "tokenizer.json").read_text("utf-8"))


# Texts into ids


@given(instruction=TEXT, query=TEXT, documents=st.lists(TEXT, max_size=4), room=st.integers(9, 60))
def split_prompts(instruction, query, documents, room):
    ours = tokenizer()
    control = {ours.end_of_text, *ours._control.values()}
    prefix = ours.rerank_prefix(instruction, query)
    assert prefix[: len(ours.rerank_head)] == ours.rerank_head
    assert control.isdisjoint(prefix[len(ours.rerank_head) :])
    suffix = len(ours.rerank_suffix)
    rows, cut = ours.rerank_documents(documents, room)
    for i, (text, row) in enumerate(zip(documents, rows, strict=True)):
        assert row[-suffix:] == ours.rerank_suffix
        assert control.isdisjoint(row[:-suffix])
        whole = ours.encode(f" {text}")
        assert row[:-suffix] == whole[: room - suffix]
        assert (i in cut) == (len(whole) > room - suffix)
    assert ours.encode_many(documents * 50) == [ours.encode(text) for text in documents] * 50


@given(text=TEXT, tokens=st.integers(0, 30))
def cut_texts(text, tokens):
    ours = tokenizer()
    sent = ours.without_control_tokens(text)
    assert not [token for token in CONTROL_TOKENS if token in sent]
    assert ours.without_control_tokens(sent) == sent
    assert unicodedata.is_normalized("NFC", sent)
    part = ours.cut_text(sent, tokens)
    assert sent.startswith(part)
    assert len(ours.encode(part)) <= tokens


# Sequences into packs

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=12).map(tuple)
PREFIXES = st.sampled_from([(), (1,), (1, 2), (7, 7, 7, 7)])


@given(
    callers=st.lists(
        st.lists(st.builds(TokenSequence, PREFIXES, IDS), min_size=1, max_size=6), max_size=5
    ),
    limits=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(sorted),
    known=st.sets(PREFIXES),
)
def plan_packs(callers, limits, known):
    works = [Work(sequences) for sequences in callers]
    laid: list[tuple[int, int]] = []
    while any(work.waiting for work in works):
        pack = next_pack([(works, limit) for limit in limits], lambda p: len(p) * (p in known))
        assert pack.members
        assert len(pack.ids) == len(pack.positions)
        if len(pack.members) > 1:
            assert len(pack.ids) <= limits[-1]
        members = iter(pack.members)
        for branch in pack.branches:
            for segment in branch.segments:
                work, index = next(members)
                sequence = work.sequences[index]
                rows = pack.ids[segment]
                whole = sequence.prefix + sequence.ids
                assert tuple(rows) == sequence.ids
                assert pack.positions[segment.stop - 1] == len(whole) - 1
                laid.append((works.index(work), index))
            if branch.prefix not in known:
                assert tuple(pack.ids[branch.prefix_rows]) == branch.prefix
    assert sorted(laid) == [(i, j) for i, each in enumerate(callers) for j in range(len(each))]


# Files

CUTTER = Cutter(tokenizer_of("tiny"), chunk_size=16, chunk_overlap=4)
TAGS = ["p", "h1", "h2", "pre", "td", "tr", "ul", "li", "br", "b"]
ODD = ["<!-- x -->", "<![CDATA[y]]>", "<script>z</script>", "&#xD800;", "&lt;", "<title>t", "\n"]
HTML = st.lists(
    st.sampled_from([*(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS), *ODD])
    | st.text(max_size=6),
    max_size=20,
).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))
LINES = st.lists(
    JSON.map(json.dumps)
    | st.dictionaries(st.sampled_from(["text", "id", "_x", "pk"]), JSON).map(json.dumps)
    | st.sampled_from(["[" * 20_000, '{"text": "\\ud800"}', '{"text": "x", "n": 1e999}']),
    max_size=5,
).map(lambda lines: "\n".join(lines).encode())


@given(st.one_of(st.binary(max_size=200), HTML, LINES), st.sampled_from(sorted(KINDS)))
def read_files(data, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        path.write_bytes(data)
        file = SourceFile(path, path.name, KINDS[suffix], len(data))
        try:
            sections = list(read_sections(file, hashlib.sha256(), lambda *_: None))
        except UnreadableError:
            return
    for section in sections:
        section.text.encode()
        json.dumps(section.metadata, allow_nan=False, ensure_ascii=False).encode()
        assert all(len(CUTTER.tokenizer().encode(p.text)) > 0 for p in CUTTER.cut(section))
        assert "# ".join(split_at_headings(section.text)) == section.text
        for part in split_to_fit(section.text, 16):
            assert len(part.encode()) <= 16


NOTES = st.dictionaries(
    st.sampled_from(["corpus", "source", "file", "splitter", "chunks"]), st.just("c") | JSON
).map(json.dumps)


@given(st.lists(NOTES.map(str.encode) | st.binary(max_size=40) | st.just(b"[" * 20_000)))
def read_journals(lines):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        path.write_bytes(b"\n".join(lines))
        assert isinstance(Journal(path, "c").read(), dict)


@given(NOTES | JSON.map(json.dumps) | ANY_TEXT | st.just("[" * 20_000))
def read_fingerprints(text):
    with pytest.raises(ValueError, match="not a fingerprint"):
        Fingerprint.from_json(text)


# Servers' replies

ENTRY = st.fixed_dictionaries(
    {"index": st.integers(-1, 3) | st.sampled_from([True, False, 0.0, 1.0]) | JSON},
    optional={
        "relevance_score": st.floats() | JSON,
        "score": st.floats() | JSON,
        "embedding": st.lists(st.floats() | JSON, max_size=4) | JSON,
    },
)
REPLY = st.one_of(
    JSON,
    st.lists(ENTRY, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "results": st.lists(ENTRY, max_size=3) | JSON,
            "data": st.lists(ENTRY, max_size=3) | JSON,
            "usage": JSON | st.dictionaries(st.sampled_from(["prompt_tokens"]), JSON),
        },
    ),
)
MODELS = JSON | st.fixed_dictionaries(
    {
        "data": JSON
        | st.lists(
            st.dictionaries(
                st.sampled_from(["id", "owned_by", "max_model_len", "meta"]),
                JSON | st.sampled_from(["tiny", "vllm", "llamacpp", {"n_ctx": 1}]),
            )
        )
    }
)


@given(
    reply=REPLY,
    models=MODELS,
    kind=st.sampled_from(["auto", "vllm", "sglang"]),
    check=st.booleans(),
)
def read_replies(reply, models, kind, check):
    async def get(self, path):
        return models

    async def post(self, path, body, texts):
        return reply

    remote_model._known.clear()
    server = Server(kind=kind, self_check=check)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(Client, "get", get)
        patch.setattr(Client, "post", post)
        for make, ask in (
            (RemoteEmbedder, lambda c: c.embed_documents(["a", "b"])),
            (RemoteReranker, lambda c: c.score(["a", "b"], QUERY)),
        ):
            try:
                found = ask(make("tiny", base_url="http://localhost:1", server=server))
            except (ServerError, FloatingPointError):
                continue
            except ValueError as error:  # a limit that leaves no room
                if "max_length" not in str(error):
                    raise
            else:
                assert len(found) == 2
                assert np.isfinite(found).all()
    remote_model._known.clear()


# Arguments of every type


@given(value=ANYTHING, other=ANYTHING)
def refuse_arguments(value, other):
    calls: list[Callable[[], Any]] = [
        lambda: check_text(value, "x"),
        lambda: check_texts(value, "x"),
        lambda: check_query(value),
        lambda: check_top_n(value),
        lambda: check_dimensions(value, 256),
        lambda: check_threshold(value),
        lambda: resolve_instruction(value),
        lambda: check_base_url(value),
        lambda: check_key(value, "x"),
        lambda: literal(value),
        lambda: Server(kind=value),
        lambda: Server(batch_size=value, retries=other),
        lambda: embedder().embed_documents(value),
        lambda: embedder().embed_queries([value], instruction=other),
        lambda: reranker().rerank([other], value),
        lambda: reranker().rerank(["a"], QUERY, top_n=value, score_threshold=other),
        lambda: reranker().score_pairs([(value, other)]),
        lambda: reranker().score_pairs(value),
        lambda: asyncio.run(embedder().aembed_documents([value, other])),
    ]
    for call in calls:
        with contextlib.suppress(TypeError, ValueError):
            call()


# Answers


@given(texts=st.lists(TEXT, min_size=1, max_size=4), order=st.randoms(use_true_random=False))
def answer_in_any_order(texts, order):
    shuffled = list(range(len(texts)))
    order.shuffle(shuffled)
    vectors = embedder().embed_documents(texts)
    scores = reranker().score(texts, QUERY)
    again = embedder().embed_documents([texts[i] for i in shuffled])
    assert np.abs(again - vectors[shuffled]).max() < 1e-5
    assert np.abs(
        reranker().score([texts[i] for i in shuffled], QUERY) - scores[shuffled]
    ).max() < (1e-4)
    with ThreadPoolExecutor(4) as threads:  # each alone, all at once
        alone = list(threads.map(lambda text: embedder().embed_documents([text])[0], texts))
    assert np.abs(np.stack(alone) - vectors).max() < 1e-5


@given(st.lists(TEXT, min_size=1, max_size=4))
def fence_passages(texts):
    fenced = fence(texts)
    assert fenced.count("</passage>") == fenced.count("<passage ") == len(texts)
    assert not [token for token in CONTROL_TOKENS if token in fenced]
    assert cited(fenced, len(texts)) == []


PROPERTIES: dict[Callable[[], None], int] = {
    split_prompts: 60,
    cut_texts: 60,
    plan_packs: 100,
    read_files: 100,
    read_journals: 30,
    read_fingerprints: 30,
    read_replies: 60,
    refuse_arguments: 30,
    answer_in_any_order: 6,
    fence_passages: 40,
}
"""Property -> examples in the suite."""


@cache
def prepared(prop: Callable[[], None]) -> Callable[[], None]:
    """With its settings, which hypothesis lets a function be given once."""
    return settings(
        max_examples=PROPERTIES[prop],
        database=None,
        deadline=None,
        derandomize=False,  # else every round would try the same examples where CI is set
        suppress_health_check=list(HealthCheck),
    )(prop)


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_briefly(prop):
    prepared(prop)()


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_for_long(prop):
    end = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "600")) / len(PROPERTIES)
    rounds = 0
    while time.monotonic() < end:
        prepared(prop)()
        rounds += 1
    print(f"{prop.__name__}: {rounds * PROPERTIES[prop]} examples")


# What was found


def test_a_deeply_nested_page_takes_time_in_proportion():
    def read(headings: int) -> str:
        return html_section("<h1>x" * headings + "<p>" * 100 + "y<br>" * 1_000, 0).text

    assert read(3_000).count("x") == 3_000
    assert growth(read, 750) < 9


@pytest.mark.parametrize("index", [[True, False], [0.0, 1.0], ["0", "1"], [0, 0], [1, 2]])
def test_indices_that_are_no_counts_are_refused(index):
    from qwen3_core.remote.replies import in_order

    with pytest.raises(ValueError, match="2 results with the indices"):
        in_order([{"index": i} for i in index], 2)
