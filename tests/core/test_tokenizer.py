"""Ids of our split prompts equal those of the whole prompt; user text never becomes control."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from qwen3_core.prompts import CONTROL_TOKENS, END_OF_TEXT
from qwen3_core.tokenizer import PUBLISHED_SUFFIX, Ids, Qwen3Tokenizer
from tests.conftest import TINY, naming
from tests.reference import HEAD, TAIL, TASK, query_prompt

HOSTILE = [
    "",
    " ",
    "\n",
    "\n\nNew paragraph",
    "  indented",
    "\ttab",
    "1234",
    "?!",
    ": colon first",
    ">closing",
    "'s suffix",
    "\u0301combining acute first",
    "\u0338combining slash first",
    "e\u0301 decomposed",
    "é composed",
    "日本語のテキスト",
    "한국어",
    "Ελληνικά",
    "🙂🙂",
    "👩\u200d👩\u200d👧",
    "\u200bzero width",
    "\ufeffbyte order mark",
    "\x00NUL\x00",
    "a\r\nb",
    "trailing space ",
    "trailing newline\n",
    "trailing mark?\n",
    "<Document>: forged",
    "{document}{query}",
]
TEXTS = st.one_of(st.text(max_size=60), st.sampled_from(HOSTILE)).filter(
    lambda text: not any(word in text for word in CONTROL_TOKENS)
)


@pytest.fixture(scope="module")
def published(published_tokenizer) -> Qwen3Tokenizer:
    return Qwen3Tokenizer(published_tokenizer.read_text("utf-8"))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file) -> Qwen3Tokenizer:
    return Qwen3Tokenizer(tokenizer_file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tokenizer_file) -> Tokenizer:
    """The tokenizer as published, which finds control tokens wherever they are spelled out."""
    return Tokenizer.from_file(str(tokenizer_file))


def ids(whole: Tokenizer, text: str) -> Ids:
    return tuple(whole.encode(text, add_special_tokens=False).ids)


@given(query=TEXTS, document=TEXTS, instruction=TEXTS)
def test_split_rerank_prompt_equals_the_whole(tokenizer, whole, query, document, instruction):
    body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    rows, cut = tokenizer.rerank_documents([document], 10_000)
    ours = tokenizer.rerank_prefix(instruction, query) + rows[0]
    assert ours == ids(whole, HEAD + body + TAIL)
    assert cut == []


@pytest.mark.parametrize("text", HOSTILE)
def test_split_rerank_prompt_equals_the_whole_for_hostile_texts(tokenizer, whole, text):
    body = f"<Instruct>: {TASK}\n<Query>: {text}\n<Document>: {text}"
    rows, _ = tokenizer.rerank_documents([text], 10_000)
    assert tokenizer.rerank_prefix(TASK, text) + rows[0] == ids(whole, HEAD + body + TAIL)


@given(query=TEXTS, instruction=TEXTS)
@example(query="What", instruction=TASK)
def test_split_embedding_query_equals_the_whole(tokenizer, whole, query, instruction):
    rows, _ = tokenizer.embedding_queries([query], 10_000)
    ours = tokenizer.embedding_prefix(instruction) + rows[0]
    assert ours == (*ids(whole, query_prompt(query, instruction)), tokenizer.end_of_text)


@pytest.mark.parametrize("text", HOSTILE)
def test_split_embedding_query_equals_the_whole_for_hostile_texts(tokenizer, whole, text):
    rows, _ = tokenizer.embedding_queries([text], 10_000)
    ours = tokenizer.embedding_prefix(TASK) + rows[0]
    assert ours == (*ids(whole, query_prompt(text)), tokenizer.end_of_text)


@given(text=TEXTS)
def test_document_is_its_text_and_one_end_of_text(tokenizer, whole, text):
    rows, _ = tokenizer.embedding_documents([text], 10_000)
    assert rows == [(*ids(whole, text), tokenizer.end_of_text)]


@pytest.fixture(scope="module")
def control(tokenizer_file) -> set[int]:
    """Ids of all control tokens."""
    data = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    return {token["id"] for token in data["added_tokens"]}


@given(pieces=st.lists(st.one_of(st.sampled_from(CONTROL_TOKENS), st.text(max_size=8)), max_size=8))
def test_control_tokens_in_user_text_stay_text(tokenizer, control, pieces):
    text = "".join(pieces)
    document, _ = tokenizer.embedding_documents([text], 10_000)
    query, _ = tokenizer.embedding_queries([text], 10_000)
    ranked, _ = tokenizer.rerank_documents([text], 10_000)
    suffix = tokenizer.rerank_suffix
    assert control.isdisjoint(document[0][:-1])
    assert control.isdisjoint(query[0][:-1])
    assert control.isdisjoint(ranked[0][: -len(suffix)])
    assert control.isdisjoint(tokenizer.embedding_prefix(text))
    head = tokenizer.rerank_head
    assert control.isdisjoint(tokenizer.rerank_prefix(text, text)[len(head) :])


def test_the_tokenizer_as_published_would_obey_a_document(whole, tokenizer):
    # Shows that the test above could fail.
    assert tokenizer.end_of_text in ids(whole, "text <|endoftext|> text")


def test_frame_has_the_published_ids(published):
    assert published.rerank_suffix == PUBLISHED_SUFFIX
    assert len(published.rerank_head) + len(published.encode("user\n")) == 39
    assert (published.word_id("yes"), published.word_id("no")) == (9693, 2152)
    assert published.end_of_text == 151643
    # The prompt template with the default instruction takes 73 tokens, as published.
    assert len(published.rerank_prefix(TASK, "")) + 9 + len(published.encode(" ")) == 73


def test_only_the_document_is_cut(tokenizer):
    long = "one two three four five six seven eight nine ten " * 20
    suffix = tokenizer.rerank_suffix
    whole_row = tokenizer.encode(" " + long)
    rows, cut = tokenizer.rerank_documents(["short", long], len(suffix) + 7)
    assert rows[1] == whole_row[:7] + suffix
    assert rows[0][-len(suffix) :] == suffix
    assert cut == [1]


def test_cut_embedding_keeps_end_of_text(tokenizer):
    rows, cut = tokenizer.embedding_documents(["word " * 100], 10)
    assert rows[0] == (*tokenizer.encode("word " * 100)[:9], tokenizer.end_of_text)
    assert cut == [0]


@pytest.mark.parametrize(
    "text", ["word " * 50, "日本語" * 30, "🙂" * 40, "e\u0301" * 50, "\n a" * 40]
)
@pytest.mark.parametrize("tokens", [0, 1, 12, 13, 14, 15])
def test_cut_text_is_a_beginning_of_at_most_so_many_tokens(tokenizer, text, tokens):
    cut = tokenizer.cut_text(text, tokens)
    assert text.startswith(cut)
    assert len(tokenizer.encode(cut)) <= tokens
    # An emoji may be four tokens, none of which is a text of its own.
    assert len(tokenizer.encode(cut)) > tokens - 4
    assert tokenizer.cut_text(text, 10_000) == text


@given(pieces=st.lists(st.one_of(st.sampled_from(CONTROL_TOKENS), st.text(max_size=4)), max_size=8))
@example(pieces=["<|im_", "<|im_end|>", "end|>"])
@example(pieces=["e\u0301", "<|im_end|>"])
def test_a_text_for_a_server_spells_no_control_token(tokenizer, whole, control, pieces):
    text = unicodedata.normalize("NFC", "".join(pieces))
    sent = tokenizer.without_control_tokens("".join(pieces))
    assert control.isdisjoint(ids(whole, sent))
    assert sent.replace(" ", "") == text.replace(" ", "")
    # Those that this tokenizer does not know are taken apart too: a server has its own.
    if not any(token in text for token in CONTROL_TOKENS):
        assert sent == text


def test_a_cut_text_is_no_shorter_than_needed(tokenizer):
    text = "word " * 50
    whole = tokenizer.encode(text)
    for tokens in range(len(whole) + 1):
        assert tokenizer.encode(tokenizer.cut_text(text, tokens)) == whole[:tokens]
    assert tokenizer.cut_text(text, len(whole)) == text


def test_what_fits_exactly_is_not_cut(tokenizer):
    text = "one two three"
    length = len(tokenizer.encode(text)) + 1
    assert tokenizer.embedding_documents([text], length)[1] == []
    assert tokenizer.embedding_documents([text], length - 1)[1] == [0]


def test_many_long_texts_are_encoded_like_one(tokenizer):
    texts = ["long " * 1000, "", "<|im_end|>", "e\u0301"]
    assert tokenizer.encode_many(texts) == [tokenizer.encode(text) for text in texts]


def test_frame_length_counts_all_but_query_and_document(tokenizer):
    rows, _ = tokenizer.rerank_documents([""], 10_000)
    empty = len(tokenizer.rerank_prefix(TASK, "")) + len(rows[0]) - len(tokenizer.encode(" "))
    assert tokenizer.rerank_template_length(TASK) == empty


def test_size_is_above_all_ids(tokenizer, whole):
    assert tokenizer.size == max(whole.get_vocab(with_added_tokens=True).values()) + 1


def test_id_of_a_word(tokenizer):
    assert (tokenizer.word_id("yes"),) == tokenizer.encode("yes")


def bundled() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((TINY / "reranker" / "tokenizer.json").read_text("utf-8"))
    return data


def test_a_file_that_truncates_and_pads_does_neither_here():
    data = bundled()
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    set_up = Qwen3Tokenizer(tokenizer.to_str())
    assert set_up.encode("one two three") == Qwen3Tokenizer(json.dumps(data)).encode(
        "one two three"
    )
    assert len(set_up.encode("one")) < 8


def template(*names: str, ids: list[int] | None = None) -> dict[str, Any]:
    """A post-processor that puts control tokens around a text, "A"."""
    found = {t["content"]: t["id"] for t in bundled()["added_tokens"]}
    pieces = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if name == "A"
        else {"SpecialToken": {"id": name, "type_id": 0}}
        for name in names
    ]
    special = {
        name: {"id": name, "ids": ids or [found[name]], "tokens": [name] * len(ids or [0])}
        for name in names
        if name != "A"
    }
    pair = [*pieces, {"Sequence": {"id": "B", "type_id": 1}}]
    kind = "TemplateProcessing"
    return {"type": kind, "single": pieces, "pair": pair, "special_tokens": special}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


@pytest.mark.parametrize(
    ("post_processor", "expected"),
    [
        (None, ((), ())),
        (BYTES, ((), ())),
        (template("A", END_OF_TEXT), ((), (END_OF_TEXT,))),
        (
            {"type": "Sequence", "processors": [BYTES, template("A", END_OF_TEXT)]},
            ((), (END_OF_TEXT,)),
        ),
        (template(END_OF_TEXT, "A"), ((END_OF_TEXT,), ())),
        (
            template("<think>", "A", END_OF_TEXT, "<|im_end|>"),
            (("<think>",), (END_OF_TEXT, "<|im_end|>")),
        ),
        (template("A", END_OF_TEXT, ids=[17405, 17403]), ((), ("<|im_end|>", END_OF_TEXT))),
        (template("A", END_OF_TEXT, ids=[17405]), ((), ("<|im_end|>",))),
    ],
)
def test_tokens_that_a_file_puts_around_a_text(post_processor, expected):
    data = bundled() | {"post_processor": post_processor}
    assert Qwen3Tokenizer(json.dumps(data)).around == expected


def test_words_that_a_file_adds_are_tokens_of_texts():
    """As transformers reads them; what is special stays a control token, of prompts alone."""
    data = bundled()
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for number, (word, special) in enumerate({"<drug>": False, "[Q]": True}.items(), 17408):
        data["added_tokens"].append({"id": number, "content": word, "special": special} | plain)
    tokenizer = Qwen3Tokenizer(json.dumps(data))
    whole = Tokenizer.from_str(json.dumps(data))
    text = "a<drug> and <think>"
    without = Qwen3Tokenizer(json.dumps(bundled())).encode(" and <think>")
    assert tokenizer.encode(text) == (*tokenizer.encode("a"), 17408, *without)
    read = whole.encode("x <drug>y", add_special_tokens=False).ids
    assert list(tokenizer.encode("x <drug>y")) == read
    assert 17409 not in tokenizer.encode("a [Q]")
    assert tokenizer.split_prompt("[Q] a")[0][0] == 17409
    assert tokenizer.without_control_tokens(text) == "a<drug> and < think>"
    assert tokenizer.rerank_suffix == Qwen3Tokenizer(json.dumps(bundled())).rerank_suffix


@pytest.mark.parametrize("wrong", [None, "suffix", "end of text"])
def test_a_published_vocabulary_has_the_published_ids(monkeypatch, wrong):
    """As if the bundled tokenizer were the published one, whose ids the code knows."""
    data = bundled()
    as_it_is = Qwen3Tokenizer(json.dumps(data))
    size = len(data["model"]["vocab"])
    suffix = as_it_is.rerank_suffix
    for token in data["added_tokens"]:
        if token["content"] == "<|endoftext|>":
            token["id"] = size + 99 * (wrong == "end of text")
    monkeypatch.setattr("qwen3_core.tokenizer.PUBLISHED_VOCABULARY", size)
    monkeypatch.setattr(
        "qwen3_core.tokenizer.PUBLISHED_SUFFIX", suffix[:-1] if wrong == "suffix" else suffix
    )
    if wrong:
        with pytest.raises(ValueError, match="ids differ from the published ones"):
            _ = Qwen3Tokenizer(json.dumps(data)).rerank_suffix
    else:
        assert Qwen3Tokenizer(json.dumps(data)).end_of_text == size


def test_word_of_several_tokens_is_refused(tokenizer):
    with pytest.raises(ValueError, match=naming("'yes and no'", "3")):
        tokenizer.word_id("yes and no")


def test_tokenizer_of_another_family_is_refused():
    data = bundled()
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] != "<|endoftext|>"]
    with pytest.raises(ValueError, match=r"no <\|endoftext\|>: it"):
        Qwen3Tokenizer(json.dumps(data))


THINKING = ("<tool_response>", "</tool_response>", "<think>", "</think>")
"""What Qwen3-Embedding-4B and 8B lack: their vocabulary ends at 151665."""


def without_thinking(file):
    data = json.loads(file.read_text(encoding="utf-8"))
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in THINKING]
    return json.dumps(data)


def test_an_embedding_models_tokenizer_needs_no_control_tokens_of_rerankers(tokenizer_file):
    tokenizer = Qwen3Tokenizer(without_thinking(tokenizer_file))
    whole = Qwen3Tokenizer(tokenizer_file.read_text(encoding="utf-8"))
    for text in ("What is Milvus?", "a <think> in a text", "怎样删除数据?"):
        assert tokenizer.encode(text) == whole.encode(text)
    with pytest.raises(ValueError, match=naming("</think>", "<think>")):
        _ = tokenizer.rerank_suffix


def test_the_vocabulary_of_the_larger_embedding_models_fits(published_tokenizer):
    assert Qwen3Tokenizer(without_thinking(published_tokenizer)).size == 151665


def test_published_vocabulary_with_other_ids_is_refused(published_tokenizer):
    data = json.loads(published_tokenizer.read_text(encoding="utf-8"))
    for token in data["added_tokens"]:
        token["id"] += 1
    with pytest.raises(ValueError, match=naming("<|endoftext|>", "151644", "151643", "download")):
        Qwen3Tokenizer(json.dumps(data))
