"""Electronic books (EPUB): their chapters in reading order."""

import io
import posixpath
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from qwen3_retrieval.documents.html import read_html
from qwen3_retrieval.documents.office import check_packed
from qwen3_retrieval.documents.text import Section, UnreadableError


def read_epub(data: bytes) -> Iterator[Section]:
    """Yield the chapters.

    Raises:
        UnreadableError: If it cannot be read.
    """
    check_packed(data, "EPUB")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as book:
            # expat limits the expansion of entities, and ElementTree opens no external ones.
            container = ET.fromstring(book.read("META-INF/container.xml"))  # noqa: S314
            place = next(container.iterfind(".//{*}rootfile")).attrib["full-path"]
            package = ET.fromstring(book.read(place))  # noqa: S314
            items = {item.attrib["id"]: item.attrib for item in package.iterfind(".//{*}item")}
            folder = posixpath.dirname(place)
            locked = _encrypted(book)
            chapters = []
            for spine in package.iterfind(".//{*}itemref"):
                item = items[spine.attrib["idref"]]
                if "html" in item.get("media-type", ""):
                    name = posixpath.normpath(posixpath.join(folder, unquote(item["href"])))
                    if name in locked:
                        reason = "an encrypted EPUB: save it without copy protection"
                        raise UnreadableError(reason)
                    chapters.append(book.read(name))
            title = package.findtext(".//{*}title") or ""
    except UnreadableError:
        raise
    except Exception as error:  # a broken file can raise anything
        reason = "not a readable EPUB"
        raise UnreadableError(reason, f"{type(error).__name__}: {error}") from error
    named = {"title": " ".join(title.split())} if title.strip() else {}
    for chapter in chapters:
        section = read_html(chapter)
        yield Section(section.text, len(chapter), section.blocks, named | section.place)


def _encrypted(book: zipfile.ZipFile) -> set[str]:
    """The files of a book that are encrypted; fonts often are, in books that can be read."""
    if "META-INF/encryption.xml" not in book.namelist():
        return set()
    listed = ET.fromstring(book.read("META-INF/encryption.xml"))  # noqa: S314
    return {unquote(each.attrib["URI"]) for each in listed.iterfind(".//{*}CipherReference")}
