"""What is read from each kind of file, and how it becomes chunks."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_retrieval.ingest.chunks import ChunkMaker, heading_of, split_to_fit
from qwen3_retrieval.ingest.corpus import find_corpus
from qwen3_retrieval.ingest.framework import heading_path
from qwen3_retrieval.ingest.reading import MAX_METADATA, UnreadableError, read_sections
from tests.ingest.conftest import write

PAGE = b"""<!doctype html>
<html><head><meta charset="%s"><title>The  office</title><style>p {color: red}</style></head>
<body><!-- a comment --><nav>Menu</nav>
<h1>Opening <em>hours</em></h1>
<p>From <b>eight</b>
to&nbsp;six.</p>Loose text
<div>In a box<div>in a box</div></div>
<h2></h2><h3>Prices</h3>
<ul><li>Tea</li><li>Caf%s</li></ul>
<table><tr><th>cup</th><th>price</th></tr><tr><td>small</td><td>2</td></tr></table>
<pre>a = 1
  b = 2</pre><script>alert("no")</script></body></html>
"""


def sections(path: Path, text_field: str = "text"):
    """The sections of one file, the bad lines, and the digest of what was read."""
    (file,) = find_corpus(path).files
    bad: list[str] = []
    hasher = hashlib.sha256()
    found = list(read_sections(file, hasher, text_field, bad.append))
    assert hasher.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    return found, bad


# Files


def test_a_corpus_is_what_can_be_read_in_a_folder(tmp_path):
    for name in (
        "b.md",
        "a/c.TXT",
        "a/d.pdf",
        "photo.png",
        ".hidden.md",
        ".git/x.md",
        "z.markdown",
    ):
        write(tmp_path / "docs" / name, "x")
    found = find_corpus(tmp_path / "docs")
    assert [f.source for f in found.files] == ["a/c.TXT", "a/d.pdf", "b.md", "z.markdown"]
    assert (found.name, found.ignored, found.whole) == ("docs", 1, True)
    one = find_corpus(tmp_path / "docs" / "b.md")
    assert ([f.source for f in one.files], one.name, one.whole) == (["b.md"], "docs", False)


def test_a_corpus_with_nothing_to_read_is_refused(tmp_path):
    write(tmp_path / "docs" / "photo.png", "x")
    with pytest.raises(ValueError, match=r"there is no file to read \(\.md, "):
        find_corpus(tmp_path / "docs")
    with pytest.raises(ValueError, match="is of no kind that can be read"):
        find_corpus(tmp_path / "docs" / "photo.png")


def test_markdown_and_text_as_they_stand(tmp_path):
    ((section,), bad) = sections(write(tmp_path / "a.md", b"\xef\xbb\xbf# \xc3\x9c\r\n\r\nTwo"))
    assert (section.text, section.markdown, section.metadata, bad) == ("# Ü\n\nTwo", True, {}, [])
    ((section,), _) = sections(write(tmp_path / "a.txt", "# no heading"))
    assert not section.markdown


@pytest.mark.parametrize(("charset", "name"), [("utf-8", "é"), ("iso-8859-1", "é")])
def test_html_has_all_words_and_marks_headings(tmp_path, charset, name):
    pytest.importorskip("bs4", reason="beautifulsoup4 (extra ingest) is not installed")
    data = PAGE % (charset.encode(), name.encode(charset))
    ((section,), _) = sections(write(tmp_path / "a.html", data))
    lines = [" ".join(line.split()) for line in section.text.split("\n") if line.strip()]
    assert lines == [
        *("Menu", "# Opening hours", "From eight to six.", "Loose text", "In a box", "in a box"),
        *("### Prices", "Tea", "Café", "cup price", "small 2", "a = 1", "b = 2"),
    ]
    assert "\n  b = 2" in section.text
    assert (section.markdown, section.metadata) == (True, {"title": "The office"})


def test_a_pdf_page_by_page(tmp_path):
    pytest.importorskip("pypdf", reason="pypdf (extra ingest) is not installed")
    data = pdf(["Keys hang in the archive.", "", "Beans come on Mondays."])
    found, _ = sections(write(tmp_path / "a.pdf", data))
    assert [(s.text.strip(), s.metadata["page"]) for s in found] == [
        ("Keys hang in the archive.", 1),
        ("", 2),
        ("Beans come on Mondays.", 3),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable PDF"),
        (b"plain words", "not a readable PDF"),
        ("scanned", "no text on its 2 pages: are they scanned images"),
        ("torn", "not a readable PDF"),
    ],
)
def test_a_bad_pdf_says_why(tmp_path, data, reason):
    pytest.importorskip("pypdf", reason="pypdf (extra ingest) is not installed")
    if data == "scanned":
        data = pdf(["", ""])
    elif data == "torn":
        data = pdf(["Some words."])[:150]
    with pytest.raises(UnreadableError, match=reason):
        sections(write(tmp_path / "a.pdf", data))


@pytest.mark.parametrize(("name", "package"), [("a.pdf", "pypdf"), ("a.html", "bs4")])
def test_a_missing_package_is_named_with_the_extra(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UnreadableError, match=r'run `pip install "qwen3-retrieval\[ingest\]"`'):
        sections(write(tmp_path / name, "x"))


def test_json_lines_one_by_one(tmp_path):
    lines = [
        '\ufeff{"body": "First", "text": "its own", "page": 3, "none": null, "$meta": 1, "": 2}',
        "",
        '{"body": "Second", "nested": {"a": [1, 2.5]}}',
        '{"body": 5}',
        '{"body": "x", "big": "' + "y" * MAX_METADATA + '"}',
        "[" * 100_000,
    ]
    found, bad = sections(write(tmp_path / "a.jsonl", "\n".join(lines)), "body")
    assert [s.text for s in found] == ["First", "Second"]
    assert found[0].metadata == {
        "record_text": "its own",
        "page": 3,
        "record_$meta": 1,
        "record_": 2,
    }
    assert found[1].metadata == {"nested": {"a": [1, 2.5]}}
    assert sum(s.size for s in found) == sum(len(line.encode()) + 1 for line in lines[:3:2])
    assert [reason.partition(":")[0] for reason in bad] == ["line 4", "line 5", "line 6"]


def test_a_line_that_is_no_text_is_one_bad_line(tmp_path):
    found, bad = sections(write(tmp_path / "a.jsonl", b'{"text": "\xff"}\n{"text": "Good"}'))
    assert [s.text for s in found] == ["Good"]
    assert bad == ["line 1: not UTF-8 text (invalid start byte at byte 10)"]


# Chunks


@given(st.text(alphabet="aé漢😀 \n", max_size=400), st.integers(8, 60))
def test_splitting_to_fit_loses_nothing_but_blanks(text, limit):
    parts = list(split_to_fit(text, limit))
    assert all(0 < len(part.encode()) <= limit and part.strip() for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_ids_follow_from_place_splitter_content_and_number():
    def ids(corpus="c", source="s", splitter="x", texts=("a", "b"), **metadata):
        return [c.id for c in ChunkMaker(corpus, source, splitter).make(texts, metadata)]

    first = ids()
    assert first == ids()
    assert len(set(ids(texts=["a", "a", "b"]))) == 3
    assert set(first) < set(ids(texts=["new", "a", "a", "b"]))
    others = [
        ids(corpus="d"),
        ids(source="t"),
        ids(splitter="y"),
        ids(page=1),
        ids(texts=["A", "B"]),
    ]
    assert not set(first).intersection(*others)
    assert len({id_ for each in [first, *others] for id_ in each}) == 12


def test_a_file_name_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match="its name is not UTF-8"):
        ChunkMaker("c", "\udcff.md", "x")


@pytest.mark.parametrize(
    ("text", "heading"),
    [("\n## Keys ##\nx", "Keys"), ("#no heading", ""), ("words\n# later", ""), ("# ", "")],
)
def test_heading(text, heading):
    assert heading_of(text) == heading


@pytest.mark.parametrize(
    ("headings", "title"),
    [
        ([], ""),
        (["Install ##", "", " Docker"], "Install > Docker"),
        (["a" * 100, "b" * 90, "c" * 100], "b" * 90 + " > " + "c" * 100),
        (["a", "b" * 201], "b" * 201),
    ],
)
def test_a_long_title_keeps_what_is_nearest(headings, title):
    assert heading_path(headings) == title


def pdf(pages: list[str]) -> bytes:
    """A PDF of one line a page."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        resources = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 612 792]"
        objects += [
            f"<< /Type /Page /Parent 2 0 R /Contents {5 + 2 * i} 0 R {resources} >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    return (
        data
        + (
            f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
            f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
        ).encode()
    )
