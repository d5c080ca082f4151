"""The files of a corpus."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Kind = Literal["markdown", "text", "html", "pdf", "jsonl"]

KINDS: Final[dict[str, Kind]] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".jsonl": "jsonl",
}
"""What the files are, by their suffix in lower case."""


@dataclass(frozen=True)
class SourceFile:
    """A file to be read."""

    path: Path
    source: str
    """Its path relative to the corpus, with "/"; with lone surrogates where it is not UTF-8."""
    kind: Kind
    size: int
    """Bytes, when it was found."""


@dataclass(frozen=True)
class Corpus:
    """A folder of files, or one file of it."""

    name: str
    files: list[SourceFile]
    ignored: int
    """Files of other kinds."""
    whole: bool
    """Whether it is a folder, all of it listed: a file that is not here does not exist."""
    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be listed, each with the reason."""


def find_corpus(path: Path, name: str | None = None) -> Corpus:
    """The readable kinds of files under a folder, by name; or one file of a folder.

    Files and folders whose name begins with a dot are left out.

    Args:
        path: Folder or file.
        name: What the corpus is called in the collection; by default the folder's name.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If there is nothing to read in it.
    """
    path = path.expanduser().resolve()
    known = f"({', '.join(KINDS)})"
    if path.is_file():
        if path.suffix.lower() not in KINDS:
            msg = f"{str(path)!r} is of no kind that can be read {known}"
            raise ValueError(msg)
        return Corpus(name or path.parent.name, [_source_file(path, path.parent)], 0, whole=False)
    if not path.is_dir():
        msg = f"there is no folder or file {str(path)!r}"
        raise FileNotFoundError(msg)
    unreadable: list[str] = []
    found = list(_walk(path, unreadable))
    files = [_source_file(file, path) for file in found if file.suffix.lower() in KINDS]
    if not files:
        msg = f"there is no file to read {known} in {str(path)!r}"
        raise ValueError(msg)
    files.sort(key=lambda file: file.source)
    ignored = len(found) - len(files)
    return Corpus(name or path.name, files, ignored, not unreadable, unreadable)


def _walk(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    def report(error: OSError) -> None:
        place = os.path.relpath(error.filename, folder)
        unreadable.append(f"{place}: {error.strerror or error}")

    # Path.rglob passes over folders that it may not list.
    for place, folders, names in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _source_file(path: Path, folder: Path) -> SourceFile:
    return SourceFile(
        path, path.relative_to(folder).as_posix(), KINDS[path.suffix.lower()], path.stat().st_size
    )
