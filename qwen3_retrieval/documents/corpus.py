"""The files of a corpus."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal

FileKind = Literal[
    "markdown",
    "text",
    "code",
    "html",
    "pdf",
    "docx",
    "xlsx",
    "pptx",
    "epub",
    "mail",
    "table",
    "json",
    "jsonl",
]

KINDS: Final[dict[str, FileKind]] = {
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    **dict.fromkeys((".txt", ".rst", ".text", ".adoc", ".org", ".tex", ".log"), "text"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".pdf": "pdf",
    ".docx": "docx",
    ".xlsx": "xlsx",
    ".pptx": "pptx",
    ".epub": "epub",
    ".eml": "mail",
    **dict.fromkeys((".csv", ".tsv"), "table"),
    ".json": "json",
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys(
        (
            *(".py", ".js", ".ts", ".jsx", ".tsx", ".java", ".kt", ".scala", ".c", ".h", ".cc"),
            *(".cpp", ".hpp", ".cs", ".go", ".rs", ".rb", ".php", ".swift", ".sh", ".sql", ".r"),
            *(".lua", ".pl", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml"),
        ),
        "code",
    ),
}
"""Kinds of files by their suffix in lower case."""

SHOWN_KINDS: Final = (
    ".md .html .pdf .docx .xlsx .pptx .epub .eml .csv .json .jsonl .txt .rst, source code"
)
"""Short description of the kinds."""

MEDIA: Final = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico", ".bmp", ".tif", ".tiff"),
        *(".mp3", ".wav", ".ogg", ".flac", ".mp4", ".webm", ".mov", ".avi", ".mkv", ".css"),
        *(".woff", ".woff2", ".ttf", ".otf", ".eot", ".map"),
    )
)
"""Pictures, sound and the like: no text is expected in them."""

OTHER_FORMATS: Final = {
    ".doc": "an old Word file: save it as .docx",
    ".xls": "an old Excel file: save it as .xlsx",
    ".ppt": "an old PowerPoint file: save it as .pptx",
    **dict.fromkeys((".odt", ".rtf", ".pages"), "a format that is not read: save it as .docx"),
    **dict.fromkeys((".ods", ".numbers"), "a format that is not read: save it as .xlsx"),
    **dict.fromkeys((".odp", ".key"), "a format that is not read: save it as .pptx"),
    **dict.fromkeys((".zip", ".gz", ".tar", ".7z"), "an archive: unpack it"),
    ".msg": "an Outlook message: save it as .eml",
    ".mbox": "a mailbox: save its messages as .eml",
}
"""Advice for files whose text is not read."""


def why_skipped(suffix: str) -> str:
    """The reason why files with this suffix are not read."""
    suffix = suffix.lower()
    if suffix in MEDIA:
        return "pictures and the like"
    extension = f"extension {suffix}" if suffix else "no extension"
    return OTHER_FORMATS.get(suffix, f"unsupported file type ({extension})")


@dataclass(frozen=True)
class SourceFile:
    """A file to be read."""

    path: Path
    source: str
    """Its path relative to the corpus, with "/"; bytes that are not UTF-8 are lone surrogates."""
    kind: FileKind
    size: int
    """Size in bytes when it was found."""


@dataclass(frozen=True)
class Corpus:
    """A folder of files, or one file in it."""

    name: str
    files: list[SourceFile]
    skipped: list[Path]
    """Files of other kinds, relative to the folder."""
    whole: bool
    """Whether this is a folder that was listed completely: files not in it do not exist."""
    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be listed and links that lead elsewhere, each with the reason."""


def find_corpus(path: Path, name: str | None = None, exclude: Sequence[str] = ()) -> Corpus:
    """Find the files of readable kinds under a folder, sorted by name; or one file of a folder.

    Files and folders whose name begins with a dot are omitted.

    Args:
        path: Folder or file.
        name: Name of the corpus in the collection; by default the folder's name.
        exclude: Patterns of files to omit, such as "*.log" or "drafts/*"; "*" also matches "/".

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it contains nothing to read.
    """
    path = path.expanduser().resolve()
    if path.is_file():
        if path.suffix.lower() not in KINDS:
            msg = f"{str(path)!r} has an unsupported file type; supported are {SHOWN_KINDS}"
            raise ValueError(msg)
        return Corpus(name or path.parent.name, [_source_file(path, path.parent)], [], whole=False)
    if not path.is_dir():
        msg = f"there is no folder or file {str(path)!r}"
        raise FileNotFoundError(msg)
    unreadable: list[str] = []
    files: list[SourceFile] = []
    skipped: list[Path] = []
    for file in sorted(_walk(path, unreadable)):
        place = file.relative_to(path)
        if any(fnmatchcase(place.as_posix(), pattern) for pattern in exclude):
            continue
        if reason := _why_no_file(file, path):
            unreadable.append(f"{place}: {reason}")
        elif file.is_dir():  # a link to a folder that is read anyway
            continue
        elif file.suffix.lower() in KINDS:
            files.append(_source_file(file, path))
        else:
            skipped.append(place)
    if not files:
        msg = f"there is no file to read ({SHOWN_KINDS}) in {str(path)!r}"
        raise ValueError(msg)
    files.sort(key=lambda file: file.source)
    return Corpus(name or path.name, files, skipped, not unreadable, unreadable)


def _walk(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    def report(error: OSError) -> None:
        place = os.path.relpath(error.filename, folder)
        unreadable.append(f"{place}: {error.strerror or error}")

    # Path.rglob silently skips folders that it may not list.
    for place, folders, names in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in [*names, *links]:
            if not name.startswith("."):
                yield Path(place, name)


def _why_no_file(path: Path, folder: Path) -> str | None:
    """Why a path is not read as a file; None if it is one, or a link to a folder of the corpus."""
    if path.is_dir():
        if path.resolve().is_relative_to(folder):
            return None
        return f"a link to a folder, which is not followed: read {str(path.resolve())!r} itself"
    if path.is_file():
        return None
    return "a link to nothing" if path.is_symlink() else "neither a file nor a folder"


def _source_file(path: Path, folder: Path) -> SourceFile:
    return SourceFile(
        path, path.relative_to(folder).as_posix(), KINDS[path.suffix.lower()], path.stat().st_size
    )
