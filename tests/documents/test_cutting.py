"""Where texts are cut: nothing is lost or altered, and no piece is longer than allowed."""

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qwen3_retrieval.documents.cutting import Cutter, heading_path, split_to_fit, tokenizer_of
from qwen3_retrieval.documents.html import html_section
from qwen3_retrieval.documents.markdown import markdown_blocks
from qwen3_retrieval.documents.text import Block, Section, plain_blocks

TINY = tokenizer_of("tiny")


def markdown(text):
    return Section(text, 0, markdown_blocks(text), markdown=True)


def cut(section, size=512, overlap=0, splitter="structure"):
    return list(Cutter(TINY, splitter, size, overlap).cut(section))


def tokens(text):
    return len(TINY().encode(text))


def located(text, pieces, heads=()):
    """What lies between the pieces of a text, each found behind the one before.

    A piece may begin with a header of a table that stands further up.
    """
    gaps, end = [], 0
    for piece in pieces:
        readings = [piece, *(piece.removeprefix(head) for head in heads)]
        starts = [(text.find(reading, end), -len(reading)) for reading in readings]
        start, length = min(found for found in starts if found[0] >= 0)  # the longest, if equal
        gaps.append(text[end:start])
        end = start - length
    return [*gaps, text[end:]]


# To the letter

LINES = st.one_of(
    st.sampled_from(
        [
            *("# One", "## Two ##", "Set\n===", "Sub\n---", "```python", "```", "~~~", "````"),
            *("    indented()", "\tgo()", "<!-- # no -->", "<div>", "- item\n  - # inner", "> # q"),
            *(
                "1. one",
                "***",
                "[a]: http://x",
                "Name\tPort",
                "10\u00a0km",
                "東京\u3000大阪。次の文",
            ),
            *("می\u200cخواهم خانه؟ بله.", "क्षत्रिय हिन्दी। दूसरा", "e\u0301\u200d\ufeff", "| a | b |"),
            *(
                "|---|---|",
                "| 1 | 2 |",
                "",
                "   ",
                "Mr. X. It is. No!",
                "👩‍👩‍👧‍👦" * 3,
                "\u2028",
                "\x0c",
                "\x85",
            ),
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=30),
)
TEXTS = st.lists(LINES, max_size=25).map("\n".join)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(4, 60), st.booleans())
def test_pieces_make_up_the_text_but_for_white_space_between_them(text, size, as_markdown):
    section = markdown(text) if as_markdown else Section(text, 0, plain_blocks(text))
    heads = {text[b:e].rstrip("\n") + "\n" for each in section.blocks for b, e, _ in each.heads}
    assume(all(text.count(line) == 1 for head in heads for line in head.split("\n") if line))
    pieces = [piece.text for piece in cut(section, size)]
    assert all(tokens(piece) <= size or is_grapheme(piece) for piece in pieces)
    ends = [block.start for block in section.blocks[1:]] + [len(text)]
    parts = [(b.level, text[b.start : end]) for b, end in zip(section.blocks, ends, strict=True)]
    if not any(part.strip() for level, part in parts if not level):
        assert not pieces  # headings alone
    else:
        assert not "".join(located(text, pieces, heads)).strip()


def is_grapheme(text):
    import regex

    return len(regex.findall(r"\X", text)) == 1


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.integers(8, 40))
def test_with_an_overlap_pieces_are_slices_still(text, size):
    section = Section(text, 0, plain_blocks(text))
    pieces = [piece.text for piece in cut(section, size, size // 3)]
    end = 0
    for piece in pieces:
        assert piece in text
        end = max(end, text.rfind(piece) + len(piece))
    assert not text[end:].strip()
    joined = "".join("".join(pieces).split())
    assert len(joined) >= len("".join(text.split()))


# Headings


@pytest.mark.parametrize(
    "code",
    [
        "~~~bash\n# comment\nmake\n~~~",
        "````md\n```\n# comment\n```\n````",
        "    # comment\n    make",
        "<!--\n# comment\n-->",
        "```\n# never closed",
        "> # quoted",
        "- item\n\n  # comment",
    ],
)
def test_headings_are_those_of_markdown(code):
    (piece,) = cut(markdown(f"# Real\n\nText.\n\n{code}\n"))
    assert piece.place["title"] == "Real"
    assert code in piece.text


def test_headings_with_lines_below_count():
    first, second = cut(markdown("Install\n=======\n\na\n\nDocker *on* `x`\n---\n\nb\n"))
    assert (first.place["title"], second.place["title"]) == ("Install", "Install > Docker on x")
    assert second.text[second.body :] == "b"


def test_a_bare_heading_is_no_passage():
    pieces = cut(markdown("# A\n\n## B\n\ntext\n\n## C\n"))
    assert [p.text for p in pieces] == ["# A\n\n## B\n\ntext\n\n## C"]
    assert pieces[0].place["title"] == "A > B"
    assert cut(markdown("# A\n\n## B\n")) == []
    pieces = cut(markdown("# A\n\n\x85\n\n## B\n\n\x85\n\n1. text\n"))  # not blank to CommonMark
    assert [p.text for p in pieces] == ["# A\n\n\x85\n\n## B\n\n\x85\n\n1. text"]


@pytest.mark.parametrize(
    ("headings", "title"),
    [
        ([], ""),
        (["Install", "", " Docker"], "Install > Docker"),
        (["a" * 100, "b" * 90, "c" * 100], "b" * 90 + " > " + "c" * 100),
        (["a", "b" * 201], "b" * 201),
    ],
)
def test_a_long_title_keeps_what_is_nearest(headings, title):
    assert heading_path(headings) == title


# Tables, lists, code


def table(kind):
    rows = [(f"service{i}", str(8000 + i)) for i in range(60)]
    if kind == "markdown":
        kind, first, indent = "", "# Ports\n", ""
    elif kind == "list":
        kind, first, indent = "", "- first\n- ports:\n", "  "
    elif kind == "quote":
        kind, first, indent = "", "> ports:\n>", "> "
    if not kind:
        lines = [
            "| Service | Port |",
            "|---|---|",
            *(f"| {name} | {port} |" for name, port in rows),
        ]
        return markdown("\n".join([first, *(indent + line for line in lines)]))
    if kind == "html":
        cells = "".join(f"<tr><td>{name}<td>{port}</tr>" for name, port in rows)
        return html_section(f"<table><tr><th>Service<th>Port</tr>{cells}</table>", 0)
    from qwen3_retrieval.documents.records import read_table

    return read_table("\n".join(["Service,Port", *map(",".join, rows)]).encode(), None)


@pytest.mark.parametrize("kind", ["markdown", "list", "quote", "html", "csv"])
def test_a_table_is_cut_between_rows_and_its_header_repeated(kind):
    pieces = cut(table(kind), 200)
    assert len(pieces) > 2
    seen = []
    for piece in pieces:
        assert "Service" in piece.text
        assert tokens(piece.text) <= 200
        seen += re.findall(r"service(\d+)\W+(\d+)", piece.text)
    assert [(int(i), int(port) - 8000) for i, port in seen] == [(i, i) for i in range(60)]


@pytest.mark.parametrize("before", ["# A\n\n```python\n", "- A\n\n    ```python\n"])
def test_code_is_cut_at_lines(before):
    code = "\n".join(f"    if x{i}:\n        go({i})" for i in range(40))
    pieces = cut(markdown(f"{before}{code}\n"), 60)
    assert len(pieces) > 5
    inner = [piece.text.split("\n") for piece in pieces[1:-1]]
    assert {line for lines in inner for line in lines} <= set(code.split("\n"))


def test_lists_are_cut_at_items():
    items = "".join(f"- number {i} of a list\n" for i in range(60))
    for piece in cut(markdown(items), 60):
        assert piece.text.startswith("- number")
        assert piece.text.endswith("of a list")


# Sentences and words


@pytest.mark.parametrize(
    ("sentence", "end"),
    [
        ("東京は日本の首都です。", "。"),
        ("आज मौसम अच्छा है। ", "।"),
        ("آیا هوا خوب است؟ ", "؟"),
        ("It is a fine day! ", "!"),
        ("They say: “It is.” ", "”"),
    ],
)
def test_long_paragraphs_are_cut_at_sentences(sentence, end):
    text = sentence * 40
    pieces = cut(Section(text, 0), 60)
    assert len(pieces) > 2
    assert all(piece.text.endswith(end) for piece in pieces)
    assert all(tokens(piece.text) > 20 for piece in pieces[:-1])  # full, not one by one


def test_lines_without_sentences_are_kept_whole():
    verse = "\n".join(f"line {i} of a long poem" for i in range(60))
    for piece in cut(Section(verse, 0), 60):
        assert piece.text.startswith("line")
        assert piece.text.endswith("poem")


def test_what_has_no_sentences_is_cut_at_words_and_then_at_characters():
    words = " ".join(f"word{i}" for i in range(200))
    pieces = cut(Section(words, 0), 40)
    assert " ".join(piece.text for piece in pieces) == words
    solid = "क्षि👩‍👩‍👧e\u0301" * 60
    pieces = cut(Section(solid, 0), 20)
    assert "".join(piece.text for piece in pieces) == solid
    assert not any(piece.text[0] in "\u200d\u0301\u093f\u094d" for piece in pieces)


def test_a_character_of_more_tokens_than_allowed_is_a_piece():
    family = "👩\u200d👩\u200d👧\u200d👦"
    pieces = cut(Section(f"{family}{family}x", 0), 1)
    assert [piece.text for piece in pieces] == [family, family, "x"]


def test_an_overlap_repeats_whole_sentences():
    text = " ".join(f"This is sentence number {i}." for i in range(60))
    pieces = [piece.text for piece in cut(Section(text, 0), 60, 20)]
    for before, after in pairwise(pieces):
        shared = after.partition(".")[0] + "."
        assert shared in before
        assert after.startswith("This")


def test_numbers_out_of_range_are_refused():
    with pytest.raises(
        ValueError, match=r"chunk_overlap must be from 0 to chunk_size - 1 = 7, got 8"
    ):
        Cutter(TINY, "structure", 8, 8)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        Cutter(TINY, "structure", 0, 0)


# Other ways to cut


def test_the_tutorials_way_is_to_the_letter():
    text = "# A\nx\n## B # C\ny"
    assert [piece.text for piece in cut(markdown(text), splitter="headers")] == [
        part for part in text.split("# ") if part.strip()
    ]


def test_the_tutorials_way_makes_its_72_passages(milvus_faq_folder):
    files = [path.read_text("utf-8") for path in milvus_faq_folder.glob("*.md")]
    pieces = [piece for file in files for piece in cut(markdown(file), splitter="headers")]
    assert len(pieces) == 72
    assert sorted(piece.text for piece in pieces) == sorted("# ".join(files).split("# "))
    assert "Where does Milvus store data?" in {piece.headings[-1] for piece in pieces}


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_the_frameworks_own_splitters(framework):
    module = pytest.importorskip(f"qwen3_retrieval.ingest._{framework}")
    text = "# One\n\nFirst.\n\n```sh\n# not a heading\n```\n\n## Two\n\nSecond.\n"
    cutter = Cutter(TINY, "framework", framework=module.splitters(TINY))
    one, two = cutter.cut(markdown(text))
    assert "First." in one.text
    assert "# not a heading" in one.text
    assert "Second." in two.text
    assert (one.headings[-1], two.headings[-1]) == ("One", "Two")


def test_a_file_as_a_whole():
    text = "# A\n\n" + "word " * 2000
    (piece,) = cut(markdown(text), splitter="none")
    assert piece.text == text


@given(st.text(alphabet="aé漢😀 \n", max_size=400), st.integers(8, 60))
def test_splitting_to_fit_loses_nothing_but_blanks(text, limit):
    parts = list(split_to_fit(text, limit))
    assert all(0 < len(part.encode()) <= limit and part.strip() for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_blocks_of_a_text_begin_behind_blank_lines():
    text = "a\nb\n\n\nc\n"
    assert plain_blocks(text) == (Block(0), Block(6))
    assert plain_blocks(text, by_lines=True)[0].cuts == (2,)


@pytest.mark.parametrize(
    "head",
    [
        "<table>\n<thead>\n<tr>\n<th>Service</th>\n<th>Port</th>\n</tr>\n</thead>\n<tbody>\n",
        "<table><tr><th>Service</th><th>Port</th></tr>\n",
    ],
)
def test_a_table_of_html_in_markdown_is_cut_between_rows(head):
    rows = [f"<tr>\n<td>service{i}</td>\n<td>{8000 + i}</td>\n</tr>\n" for i in range(20)]
    text = f"# Ports\n\n{head}{''.join(rows)}</table>\n\nEnd.\n"
    pieces = [piece.text for piece in cut(markdown(text), 200)]
    within = [piece for piece in pieces if "service" in piece]
    assert len(within) > 3
    assert all(head in piece for piece in within)
    assert all(sum(row.rstrip() in piece for piece in within) == 1 for row in rows)
