"""Files of every kind in four scripts: both frameworks store the same texts, to the letter."""

from tests.documents import mixed
from tests.ingest.conftest import read_rows, release, write


def test_both_frameworks_store_the_same_texts_to_the_letter(ingest, tmp_path, capsys):
    folder = tmp_path / "mixed"
    wanted = mixed.make_folder(folder)
    stored = {}
    for framework in ("langchain", "llama-index"):
        uri = str(tmp_path / f"{framework}.db")
        assert ingest(framework, "--corpus", str(folder), "--uri", uri) == 0, capsys.readouterr()
        assert "failures  0\n" in capsys.readouterr().out
        rows = read_rows(uri, "handbook", framework).values()
        release(uri)
        stored[framework] = {
            row["text"]: {key: row.get(key) for key in ("title", "page", "sources", "places")}
            for row in rows
        }
    assert stored["langchain"] == stored["llama-index"]
    assert len(wanted) >= 60
    for source, texts in wanted.items():
        own = [
            text for text, row in stored["langchain"].items() if source in (row["sources"] or ())
        ]
        for text in texts:
            assert any(text in each for each in own), (source, text)


def test_what_is_not_read_is_named_and_counted(framework, ingest, rows, corpus, capsys):
    write(corpus / "old.doc", "x")
    write(corpus / "data.bin", "x")
    write(corpus / "photo.png", "x")
    write(corpus / "only.md", "# Headings\n\n## alone\n")
    assert ingest(framework) == 3
    shown = capsys.readouterr()
    for line in (
        "skipped: old.doc: an old Word file: save it as .docx",
        "skipped: data.bin: unsupported file type (extension .bin)",
        "skipped: photo.png: pictures and the like",
        "left out: only.md: no text, or headings alone",
    ):
        assert shown.err.count(line) == 1
        assert line not in shown.out
    assert "failures  1\n  1 no text, or headings alone (.md)\nskipped   3\n" in shown.out
    assert "  1 pictures and the like\n" in shown.out
    (corpus / "only.md").unlink()
    given = ("--exclude", "*.doc", "--exclude", "data.bin")
    assert ingest(framework, *given) == 0  # a picture alone is no failure
    assert "skipped   1\n" in capsys.readouterr().out


def test_another_encoding_is_read_on_request(framework, ingest, rows, corpus, capsys):
    write(corpus / "latin.txt", "Der Schlüssel hängt dort.".encode("cp1252"))
    assert ingest(framework) == 3
    assert ingest(framework, "--encoding", "cp1252") == 0
    assert "Der Schlüssel hängt dort." in [row["text"] for row in rows(framework).values()]
