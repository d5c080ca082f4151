"""Decodes bytes: by byte order mark, as UTF-8, as recognisable UTF-16, or as the user says."""

import codecs
import contextlib
import re
import unicodedata
from typing import Final

from qwen3_retrieval.documents.text import UnreadableError

_MARKS: Final = (  # UTF-32 before UTF-16, because its mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_COMMON: Final = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874"),
    *("koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949", "utf_16_le", "utf_16_be"),
)
"""Encodings that files have in practice; charset-normalizer knows rarer ones that look alike."""

_GUESSED: Final = 65_536
"""Bytes that a guess examines."""


def decode(data: bytes, encoding: str | None = None) -> str:
    """Decode a text; every line end becomes one newline.

    Legacy encodings are never guessed, because a wrong guess would be indexed silently. The error
    names the likely encoding.

    Args:
        data: The file's contents.
        encoding: Encoding of text that is not Unicode.

    Raises:
        UnreadableError: If it is not text in these encodings, or contains NUL characters.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            text = _strict(data[len(mark) :], name, f"{name.upper()} by its mark")
            break
    else:
        text = _unmarked(data, encoding)
    if "\0" in text:
        reason = "NUL characters: not a text file, or a damaged one"
        raise UnreadableError(reason, f"the first of {text.count(chr(0))} at {text.index(chr(0))}")
    return re.sub("\r\n?", "\n", text)


def _unmarked(data: bytes, encoding: str | None) -> str:
    if b"\0" in data and (text := _wide(data)) is not None:
        return text
    if b"\x1b$" in data:  # ISO-2022, whose bytes are all ASCII
        if encoding is None or not codecs.lookup(encoding).name.startswith("iso2022"):
            reason = "not UTF-8 text"
            detail = "it has the escapes of ISO-2022: --encoding iso2022_jp reads it so"
            raise UnreadableError(reason, detail)
        return _strict(data, encoding, f"{encoding} either")
    if encoding is not None and codecs.lookup(encoding).name in ("utf-7", "hz"):
        with contextlib.suppress(UnicodeDecodeError):  # else a Unicode file
            return data.decode(encoding)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if encoding is not None:
            return _strict(data, encoding, f"{encoding} either")
        detail = f"byte 0x{data[error.start]:02x} at {error.start}"
        if likely := _likely(data):
            detail += f"; it is perhaps {likely}: --encoding {likely} reads it so"
        reason = "not UTF-8 text"
        raise UnreadableError(reason, detail) from error


def _strict(data: bytes, name: str, what: str) -> str:
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        reason = f"not {what}" if what.endswith("either") else f"damaged text, {what}"
        raise UnreadableError(reason, f"{error.reason} at byte {error.start}") from error


def _wide(data: bytes) -> str | None:
    """The text in UTF-16 or UTF-32 without a mark, judged by its bytes; None in case of doubt."""
    quarter = len(data) // 4
    for name, zeros in (("utf-32-le", (2, 3)), ("utf-32-be", (0, 1))):
        if len(data) % 4 == 0 and all(data[i::4].count(0) == quarter for i in zeros):
            return _sound(data, name)
    if len(data) % 2:
        return None
    for name, high in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):
        # The high bytes of alphabets are control characters, which are rare in text.
        if sum(byte < 0x20 for byte in high) >= 0.9 * len(high):
            return _sound(data, name)
    if _is_utf8(data.replace(b"\0", b"")):
        return None  # a single-byte encoding with NULs
    sound = [text for name in ("utf-16-le", "utf-16-be") if (text := _sound(data, name))]
    usual = [text for text in sound if len(_USUAL.findall(text)) >= 0.9 * len(text)]
    return usual[0] if len(usual) == 1 else None


_USUAL: Final = re.compile(
    "[\t\n\r -~\u00a0-\u00ff\u2010-\u203a\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uffef]"
)
"""Characters of Chinese, Japanese and Korean texts."""


def _sound(data: bytes, name: str) -> str | None:
    """The text; None if it contains unassigned characters."""
    try:
        text = data.decode(name)
    except UnicodeDecodeError:
        return None
    odd = any(unicodedata.category(each) in ("Cn", "Co") for each in text)
    return None if odd or "\0" in text else text


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _likely(data: bytes) -> str:
    """The likely encoding, or ""."""
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError:
        return ""
    data = data[:_GUESSED]
    # Short Latin text can be read as UTF-16 too, as Chinese.
    is_latin = 4 * sum(0x20 <= byte < 0x7F for byte in data) >= 3 * len(data)
    names = [name for name in _COMMON if not (is_latin and name.startswith("utf_16"))]
    best = from_bytes(data, cp_isolation=names).best()
    return best.encoding if best is not None else ""
