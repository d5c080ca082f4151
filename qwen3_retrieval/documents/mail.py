"""E-mails (.eml): headers, body and attachments."""

import email
import email.policy
from collections.abc import Callable, Iterable, Iterator
from email.message import MIMEPart
from typing import Any

from qwen3_retrieval.documents.html import html_section
from qwen3_retrieval.documents.text import Note, Section, UnreadableError, clean, plain_blocks

_HEADERS = ("Subject", "From", "To", "Cc", "Date")

ReadAttachment = Callable[[str, bytes], Iterable[Section]]
"""Name and content of an attachment -> its sections."""


def read_mail(data: bytes, read: ReadAttachment, note: Note) -> Iterator[Section]:
    """Yield headers and body, then the readable attachments.

    Raises:
        UnreadableError: If the e-mail has no body.
    """
    message = email.message_from_bytes(data, policy=email.policy.default)
    try:
        headers = [(name, clean(str(message[name]))) for name in _HEADERS if message[name]]
        body = message.get_body(("plain", "html"))
        attachments = list(message.iter_attachments())
    except Exception as error:  # a broken e-mail can raise anything
        reason = "not a readable e-mail"
        raise UnreadableError(reason, f"{type(error).__name__}: {error}") from error
    if not headers:
        reason = "not a readable e-mail"
        raise UnreadableError(reason, "it has no Subject, From, To or Date")
    text = "\n".join(f"{name}: {' '.join(value.split())}" for name, value in headers)
    if body is not None:
        text += "\n\n" + _body(body)
    subject = " ".join(dict(headers).get("Subject", "").split())
    place = {"title": subject} if subject else {}
    yield Section(text, len(data), plain_blocks(text), place)
    for part in attachments:
        name = clean(part.get_filename() or part.get_content_type())
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):  # an attached e-mail
            inner: Any = part.get_payload()
            content = b"".join(bytes(each) for each in inner)
            name = f"{name}.eml"
        try:
            for section in read(name, content):
                yield Section(
                    *(section.text, 0, section.blocks, {**section.place, "attachment": name}),
                    *(section.metadata, section.markdown),
                )
        except UnreadableError as error:
            note(f"an attachment: {error.reason}", ": ".join(filter(None, (name, error.detail))))


def _body(part: "MIMEPart[Any, Any]") -> str:
    try:
        content: str = part.get_content()
    except (LookupError, UnicodeDecodeError) as error:
        reason = "its character set is unknown"
        raise UnreadableError(reason, str(error)) from error
    if "\ufffd" in content:
        reason = "text in another character set than it says"
        raise UnreadableError(reason, str(part.get_content_charset()))
    text = content.replace("\r\n", "\n").replace("\r", "\n")
    if part.get_content_subtype() == "html":
        text = html_section(text, 0).text
    return text
