"""Every kind of dataset, and what is said of bad ones: the file, the line and the reason."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from qwen3_retrieval.documents.corpus import find_corpus
from qwen3_retrieval.documents.reading import read_sections
from qwen3_retrieval.evaluation import Dataset, Passage, Question, load
from qwen3_retrieval.evaluation.dataset import DatasetError
from qwen3_retrieval.evaluation.folder import read_folder
from tests.conftest import naming
from tests.evaluation.conftest import CORPUS, CUTTER, write

load_dataset = partial(load.load_dataset, model="tiny")

LONG = "Objects are written to the disk of the node and then to the object storage behind it. "


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """Three documents, two questions with an answer and one without, as BEIR lays them out."""
    folder = tmp_path / "set"
    lines(folder / "corpus.jsonl", *({"_id": f"d{i}", "title": "T", "text": f"text {i}"}
                                     for i in range(3)))  # fmt: skip
    lines(folder / "queries.jsonl", *({"_id": f"q{i}", "text": f"query {i}"} for i in range(3)))
    qrels(folder, "q0\td0\t2", "q1\td1\t1", "q1\td0\t0")
    return folder


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Two Markdown files, a text file and a page."""
    folder = tmp_path / "docs"
    install = (
        f"---\nid: 1\n---\n# Install\n\n## Prerequisites\n{LONG}\n\n"
        f"## Start the `server` {{#start}}\n```bash\n# no heading\nrun\n```\n{LONG}\n"
    )
    store = (
        f"# Store\n\n## Prerequisites\n{LONG}twice\n\n"
        f"## Where is data kept?\n{LONG * 40}\n\n## Short\nNo.\n"
    )
    write(folder / "install.md", install)
    write(folder / "sub" / "store.md", store)
    write(folder / "notes.txt", "Nothing in here is a question.\n")
    write(folder / "page.html", "<p>This is read.</p>")
    write(folder / "photo.png", "")
    return folder


def lines(path: Path, *records: Mapping[str, object]) -> Path:
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


def qrels(folder: Path, *rows: str, name: str = "test") -> Path:
    head = "query-id\tcorpus-id\tscore"
    return write(folder / "qrels" / f"{name}.tsv", "\n".join([head, *rows]) + "\n")


def test_beir(beir):
    found = load_dataset(beir)
    assert (found.kind, found.synthetic, found.notes) == ("beir", "", [])
    assert [p.text for p in found.passages] == ["T\ntext 0", "T\ntext 1", "T\ntext 2"]
    assert {q.text: dict(q.relevant) for q in found.questions} == {
        "query 0": {"d0": 2},
        "query 1": {"d1": 1},
    }


def test_beir_split(beir):
    qrels(beir, "q2\td2\t1", name="dev")
    assert len(load_dataset(beir).questions) == 2
    assert [q.id for q in load_dataset(beir, split="dev").questions] == ["q2"]
    with pytest.raises(DatasetError, match=naming("qrels/train.tsv", "dev, test")):
        load_dataset(beir, split="train")


def test_judgements_of_missing_documents_are_counted(beir):
    rows = [f"q0\td{i}\t1" for i in range(3)]
    lines(beir / "corpus.jsonl", *({"_id": f"d{i}", "text": "x"} for i in range(30)))
    qrels(beir, *(f"q0\td{i}\t1" for i in range(30)), "q1\tgone\t1")
    (note,) = load_dataset(beir).notes
    assert re.search(r"1 of 31 judgements name what is not there; first: line 32: .*'gone'", note)
    qrels(beir, *rows, "q1\tgone\t1")
    with pytest.raises(DatasetError, match=naming("test.tsv", "1 of 4", "5%", "line 5", "'gone'")):
        load_dataset(beir)


BAD: dict[str, list[tuple[str | bytes, str]]] = {
    "corpus.jsonl": [
        ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', "line 2: the id 'a' occurs tw"),
        ('{"_id": "a", "text": "x"}\n{"_id": "b"}\n', "line 2: no 'text'; there are '_id'"),
        ('{"_id": "a", "text": 3}\n', "line 1: 'text' is a int, not a string"),
        ('{"_id": "a", "text": "x"}\n\n{"_id"\n', "line 3: not JSON"),
        ("[1]\n", "line 1: a JSON list, not an object"),
        (b'{"_id": "a", "text": "caf\xe9"}\n', r"line 1: not UTF-8 text \(byte 0xe9 at 25"),
        (
            '{"_id": "a", "text": "café"}\n'.encode() + b'{"_id": "b", "text": "caf\xe9"}\n',
            r"line 2: not UTF-8 text \(byte 0xe9 at 25",
        ),
        ('{"_id": "a", "text": "x"}\n'.encode("utf-16"), "line 1: it is UTF-16"),
        ('{"_id": "a", "text": "\\ud800"}\n', "line 1: 'text' spells a lone surrogate"),
    ],
    "queries.jsonl": [
        ('{"_id": "q0", "text": "  "}\n', "line 1: 'text' is empty"),
        ('{"_id": "q", "text": "x"}\n{"_id": "q", "text": "y"}\n', "line 2: the id 'q' occurs tw"),
    ],
    "qrels/test.tsv": [
        ("query\tdoc\tscore\nq0\td0\t1\n", r"line 1: the columns are \['query', 'doc', 'score'\]"),
        ("query-id\tcorpus-id\tscore\nq0\td0\n", "line 2: 2 cells where the header .* has 3"),
        ("query-id\tcorpus-id\tscore\nq0\td0\tyes\n", "line 2: the score 'yes' is no whole number"),
        ("query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td0\t1\n", "line 3: .* are judged twice"),
        ("", "line 1: there is no header line"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [(name, *case) for name, cases in BAD.items() for case in cases],
)
def test_bad_beir_names_file_and_line(beir, name, content, message):
    write(beir / name, content)
    with pytest.raises(DatasetError, match=f"{re.escape(str(beir / name))}, {message}"):
        load_dataset(beir)


def test_markdown(docs):
    found = load_dataset(docs)
    assert (found.kind, found.synthetic) == ("markdown", "headings")
    asked = {q.text: set(q.relevant) for q in found.questions}
    assert asked.keys() == {
        "Install: Prerequisites",  # two of that name: each gets the heading above it
        "Store: Prerequisites",
        "Start the server",
        "Where is data kept?",
    }  # "Short" has no text that would answer it
    units = {p.unit: p for p in found.passages}
    for text, (unit,) in ((text, unit) for text, unit in asked.items()):
        assert text.rpartition(": ")[2] not in units[unit].text  # no comparison of strings
    (kept,) = asked["Where is data kept?"]
    pieces = [p for p in found.passages if p.unit == kept]
    assert len(pieces) > 1
    assert all(p.source == "sub/store.md" for p in pieces)
    (start,) = asked["Start the server"]
    assert "# no heading" in units[start].text
    assert not any("id: 1" in p.text for p in found.passages)
    assert "This is read." in [p.text for p in found.passages]
    assert found.notes == ["photo.png: pictures and the like"]


def test_passages_are_those_that_an_ingest_stores(docs):
    stored = []
    for file in find_corpus(docs).files:
        for section in read_sections(file, hashlib.sha256(), lambda *_: None):
            stored += [piece.text for piece in CUTTER.cut(section)]
    assert len(stored) > 6
    assert [p.text for p in read_folder(docs, CUTTER).passages] == stored


def test_equal_texts_are_one_passage_that_answers_for_all(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.md", f"# Where is {name} kept?\n\n{LONG}\n")
    write(tmp_path / "c.md", f"# Where is a kept?\n\n{LONG}\n")  # a copy of the first
    found = load_dataset(table(tmp_path / "q.csv", ("question", "source"), [("Where?", "c.md")]))
    assert [p.source for p in found.passages] == ["a.md", "b.md"]
    assert dict(found.questions[0].relevant) == {"a.md": 1}


def test_models_read_titles_as_an_ingest_embeds_them(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.md", f"# Where is {name} kept?\n\n{LONG}\n\n# Licence\n\nFree.\n")
    write(tmp_path / "c.jsonl", json.dumps({"text": "In a list.", "title": ["x"]}))
    path = table(tmp_path / "q.csv", ("question", "source"), [("Where?", "a.md")])
    found = load_dataset(path, metadata_keys=["title"])
    text = f"# Where is a kept?\n\n{LONG.strip()}"
    read = {p.model_text for p in found.passages}
    assert f"title: Where is a kept?\n\n{text}" in read
    assert text in {p.text for p in found.passages}
    assert any("c.jsonl: metadata 'title' is a list" in note for note in found.notes)
    assert [p.text for p in load_dataset(path, metadata_keys=["source"]).passages].count(
        "# Licence\n\nFree."
    ) == 2
    assert [p.text for p in load_dataset(path).passages].count("# Licence\n\nFree.") == 1


def test_metadata_that_would_not_be_measured_is_refused(beir, docs, tmp_path):
    path = table(tmp_path / "q.csv", ("question", "passage"), [("Where?", "On disk.")])
    for source in (beir, docs, path):
        with pytest.raises(DatasetError, match="metadata"):
            load_dataset(source, metadata_keys=["title"])
    assert load_dataset(docs, metadata_keys=["source"]).questions


def test_one_markdown_file(docs):
    assert load_dataset(docs / "install.md").passages[0].source == "install.md"


def test_markdown_without_a_question(tmp_path):
    write(tmp_path / "a.md", "Just text.\n")
    with pytest.raises(DatasetError, match=naming(str(tmp_path), "heading", "CSV", "--llm")):
        load_dataset(tmp_path)
    assert [p.text for p in read_folder(tmp_path, CUTTER).passages] == ["Just text."]


def test_a_bad_file_is_left_out_and_noted(docs):
    write(docs / "latin.md", b"# Caf\xe9\n")
    (latin,) = (note for note in load_dataset(docs).notes if "latin" in note)
    assert latin.startswith("latin.md: not UTF-8 text (byte 0xe9 at 5")


def test_questions_are_drawn_always_the_same():
    whole, part = load_dataset(CORPUS), load_dataset(CORPUS, max_questions=7)
    assert len(part.questions) == 7
    assert [q for q in whole.questions if q in part.questions] == part.questions
    assert part == load_dataset(CORPUS, max_questions=7)
    assert f"7 of {len(whole.questions)} questions are asked" in part.notes[-1]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_table_of_passages(tmp_path, kind):
    rows = [
        ("Where?", "On disk,\nor in memory."),
        ("What?", "A vector."),
        ("Where?", "In a bucket."),
    ]
    path = table(tmp_path / f"q.{kind}", ("question", "passage"), rows)
    found = load_dataset(path)
    assert found.kind == "table"
    texts = {p.unit: p.text for p in found.passages}
    assert {q.text: sorted(texts[u] for u in q.relevant) for q in found.questions} == {
        "Where?": ["In a bucket.", "On disk,\nor in memory."],
        "What?": ["A vector."],
    }


def test_table_of_passages_in_a_folder(tmp_path, docs):
    passage = LONG.strip()[:60].replace("Objects are", "Objects  are")
    path = table(tmp_path / "q.csv", ("query", "answer"), [("Where?", passage)])
    found = load_dataset(path, corpus=docs)
    assert len(found.questions[0].relevant) == 4  # all sections say so
    table(path, ("query", "answer"), [("Where?", "nobody wrote this")])
    with pytest.raises(
        DatasetError, match=naming("q.csv", "1 of 1", "line 2", "'nobody wrote this'")
    ):
        load_dataset(path, corpus=docs)


def test_table_of_sources(tmp_path, docs):
    rows = [("How to install?", "install.md"), ("Where is it?", "store.md")]
    path = table(tmp_path / "q.csv", ("question", "source"), rows)
    found = load_dataset(path, corpus=docs)
    assert [dict(q.relevant) for q in found.questions] == [{"install.md": 1}, {"sub/store.md": 1}]
    assert found.units == 4
    beside = table(docs / "q.csv", ("question", "source"), rows)
    assert load_dataset(beside).units == 4  # the folder that it is in


def test_two_files_of_one_name(tmp_path, docs):
    write(docs / "other" / "install.md", f"# Again\n{LONG}\n")
    write(docs / "sub" / "install.md", f"# Again\n{LONG}\n")
    path = table(tmp_path / "q.csv", ("question", "file"), [("How?", "./other/install.md")])
    assert set(load_dataset(path, corpus=docs).questions[0].relevant) == {"other/install.md"}
    (docs / "install.md").unlink()
    table(path, ("question", "file"), [("How?", "install.md")])
    with pytest.raises(
        DatasetError,
        match=naming("q.csv", "line 2", "'install.md'", "other/install.md", "sub/install.md"),
    ):
        load_dataset(path, corpus=docs)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", "frage,passage\nx,y\n", r"line 2: no column for question among \['frage', "),
        ("q.csv", "question,reply\nx,y\n", "line 2: no column for passage or source among"),
        ("q.csv", "question,passage\n ,y\n", "line 2: 'question' is empty"),
        ("q.csv", 'question,passage\nx,"y\n', "line 2: not a table"),
        ("q.csv", "question,passage\n", ": there are no questions"),
        ("q.jsonl", '{"question": "x", "passage": "y"}\n{"question": "z"}\n', "line 2: no 'passag"),
        ("q.csv", b"question,passage\nWie?,sch\xf6n\n", "line 2: not UTF-8"),
    ],
)
def test_bad_table_names_file_and_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(DatasetError, match=f"{re.escape(str(path))},? ?{message}"):
        load_dataset(path)


def test_dataset_in_python_is_checked():
    passages = [Passage("p", "text", "p")]
    assert Dataset("x", "python", passages, [Question("q", "what?", {"p": 1})]).units == 1
    for questions, message in (
        ([], "there are no questions"),
        ([Question("q", " ", {"p": 1})], "question 'q' is blank"),
        ([Question("q", "what?", {})], "question 'q' has no answer"),
        ([Question("q", "what?", {"r": 1})], "names 'r', which no passage belongs to"),
        ([Question("q", "what?", {"p": 0})], "has the grade 0"),
        ([Question("q", "a?", {"p": 1}), Question("q", "b?", {"p": 1})], "id 'q' occurs twice"),
    ):
        with pytest.raises(DatasetError, match=message):
            Dataset("x", "python", passages, questions)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=naming(repr(str(tmp_path / "gone")))):
        load_dataset(tmp_path / "gone")


def table(path: Path, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Path:
    if path.suffix == ".jsonl":
        return lines(path, *(dict(zip(columns, row, strict=True)) for row in rows))
    cells = [",".join(f'"{cell}"' for cell in row) for row in [columns, *rows]]
    return write(path, "\n".join(cells) + "\n")
