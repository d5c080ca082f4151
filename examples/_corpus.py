"""The examples' corpus: Markdown files, cut into passages that Milvus stores under stable ids."""

import glob
import hashlib
import os
import re
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _shared import MILVUS_DOCS, Settings, UserError, kept_folder
from tqdm import tqdm

from qwen3_retrieval.documents.corpus import SourceFile
from qwen3_retrieval.documents.cutting import (
    Cutter,
    FrameworkSplitters,
    LoadTokenizer,
    Piece,
    split_at_headings,
    title_of,
    tokenizer_of,
)
from qwen3_retrieval.documents.reading import read_sections
from qwen3_retrieval.documents.text import UnreadableError
from qwen3_retrieval.ingest.chunks import Chunk, make_chunk, place_key
from qwen3_retrieval.ingest.collection import delete_rows, read_holdings

Splitters = Callable[[LoadTokenizer], FrameworkSplitters]

MILVUS_DOCS_URL = (
    "https://github.com/milvus-io/milvus-docs/releases/download/"
    "v2.4.6-preview/milvus_docs_2.4.x_en.zip"
)
MILVUS_FAQ_PASSAGES = 72
"""Passages that the tutorial gets from the FAQ of this release."""


def load_passages(settings: Settings, splitters: Splitters) -> list[Chunk]:
    """Read the corpus and cut it into passages, without blank ones and duplicates.

    Args:
        settings: The command line.
        splitters: Gives the framework's own splitters, for `--splitter framework`. "headers" cuts
            at every "# ", one passage per heading of any level, and also at comments in code
            blocks, which the others do not.
    """
    tokenizer = tokenizer_of(settings.model, settings.embedding_url)
    framework = splitters(tokenizer) if settings.splitter == "framework" else None
    cutter = Cutter(tokenizer, settings.splitter, framework=framework)
    passages: dict[bytes, Chunk] = {}
    for file in _files(settings.corpus):
        for piece in _pieces(file, cutter):
            chunk = make_chunk(_place(settings.corpus), piece, 1)
            title = piece.headings[-1] if piece.headings else title_of(piece.text)
            place = {"source": file.source, "title": title}
            places = passages.setdefault(chunk.digest, chunk).places
            if place not in places:
                places.append(place)
    if not passages:
        message = f"there is no text in the Markdown files of {settings.corpus}"
        raise UserError(message)
    return list(passages.values())


def collection_name(settings: Settings, framework: str) -> str:
    """The requested collection, or a name for this framework, corpus and embedding."""
    parts = (settings.model, settings.corpus)
    shape = (str(settings.dimensions), settings.splitter)
    key = "\0".join([*(_place(part) for part in parts), *shape])
    return settings.collection or f"{framework}_{hashlib.sha256(key.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class IndexPlan:
    """The changes that bring a collection up to date with the corpus."""

    missing: list[Chunk]
    """To be embedded and added."""
    stale: set[bytes]
    """To be deleted: passages that are no longer in the corpus."""


def plan_index(
    client: Any, collection: str, id_field: str, passages: list[Chunk], settings: Settings
) -> IndexPlan:
    """Compare the corpus with its rows in a collection.

    Args:
        client: A `pymilvus.MilvusClient`.
        collection: The collection, which need not exist yet.
        id_field: Name of its primary key.
        passages: The corpus.
        settings: The command line.
    """
    corpus = _place(settings.corpus)
    held = read_holdings(client, collection, id_field, corpus, repair=True)
    entries = set().union(*held.files.values())
    missing = [
        passage
        for passage in passages
        if held.rows.get(passage.digest) != len(passage.places)
        or not entries.issuperset(passage.digest + place_key(place) for place in passage.places)
    ]
    return IndexPlan(missing, held.rows.keys() - {passage.digest for passage in passages})


def delete_stale(client: Any, collection: str, plan: IndexPlan, settings: Settings) -> None:
    """Delete the plan's stale passages."""
    delete_rows(client, collection, _place(settings.corpus), plan.stale)


def _pieces(file: SourceFile, cutter: Cutter) -> Iterator[Piece]:
    def refuse(reason: str, detail: str) -> None:
        raise UnreadableError(reason, detail)

    try:
        for section in read_sections(file, hashlib.sha256(), refuse):
            yield from cutter.cut(section)
    except UnreadableError as error:
        message = f"{file.path} cannot be read: {error}"
        raise UserError(message) from error


def _files(corpus: str) -> Iterator[SourceFile]:
    """Each Markdown file, by name."""
    folder, paths = _find(corpus)
    for path in paths:
        source = path.relative_to(folder).as_posix()
        yield SourceFile(path, source, "markdown", path.stat().st_size)


def _find(corpus: str) -> tuple[Path, list[Path]]:
    """The files of a corpus, and the folder that their names are relative to."""
    if corpus == MILVUS_DOCS:
        folder = milvus_faq()
        return folder, sorted(folder.glob("*.md"))
    path = Path(corpus).expanduser()
    if path.is_dir():
        paths = sorted(path.rglob("*.md"))
        if not paths:
            message = f"--corpus {corpus}: there is no *.md file in this folder"
            raise UserError(message)
        return path, paths
    matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute ones)
    paths = sorted(Path(match) for match in matches if Path(match).is_file())
    if not paths:
        what = "no file matches" if glob.has_magic(corpus) else "no such file or folder"
        message = f"--corpus {corpus}: {what}"
        raise UserError(message)
    return Path(os.path.commonpath([p.parent for p in paths])), paths


def milvus_faq() -> Path:
    """The folder of the Milvus FAQ that the tutorial searches, downloaded at the first call."""
    folder = kept_folder() / "milvus_docs" / "en" / "faq"
    if folder.is_dir():
        return folder
    archive = kept_folder() / MILVUS_DOCS_URL.rpartition("/")[2]
    _download(MILVUS_DOCS_URL, archive)
    try:
        with zipfile.ZipFile(archive) as files:
            broken = files.testzip()
            names = [n for n in files.namelist() if re.fullmatch(r"en/faq/[^/]+\.md", n)]
            texts = {Path(name).name: files.read(name).decode() for name in names}
    except zipfile.BadZipFile:
        broken, texts = archive.name, {}
    count = sum(len(split_at_headings(text)) for text in texts.values())
    if broken or count != MILVUS_FAQ_PASSAGES:
        archive.unlink()
        what = f"{broken} is damaged" if broken else f"{count} FAQ passages, not 72"
        message = f"{MILVUS_DOCS_URL} is not what it should be ({what}): try again later"
        raise UserError(message)
    part = folder.with_name("faq.part")
    part.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (part / name).write_text(text, encoding="utf-8")
    part.rename(folder)
    archive.unlink()
    return folder


def _download(url: str, target: Path) -> None:
    """Download a file with a progress bar; an incomplete file never has the final name."""
    part = target.with_suffix(".part")
    try:
        with urllib.request.urlopen(url, timeout=30) as reply, part.open("wb") as file:  # noqa: S310
            size = int(reply.headers.get("Content-Length") or 0)
            bar = tqdm(
                total=size or None, unit="B", unit_scale=True, desc=target.name, disable=None
            )
            with bar:
                while block := reply.read(1 << 16):
                    file.write(block)
                    bar.update(len(block))
        if size and part.stat().st_size != size:
            message = f"the connection broke after {part.stat().st_size} of {size} bytes"
            raise OSError(message)
    except OSError as error:
        part.unlink(missing_ok=True)
        message = f"cannot download {url}: {error}"
        raise UserError(message) from error
    part.rename(target)


def _place(name: str) -> str:
    """The full path of a folder or glob; other names, such as hub names, unchanged."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() or glob.has_magic(name) else name
