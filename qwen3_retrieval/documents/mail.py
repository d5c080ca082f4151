"""E-mails (.eml): headers, body and attachments."""

import email
import email.policy
import mimetypes
from collections.abc import Callable, Iterable, Iterator
from email.message import MIMEPart
from typing import Any

from qwen3_retrieval.documents.encoding import decode
from qwen3_retrieval.documents.html import html_section, read_html
from qwen3_retrieval.documents.text import Note, Section, UnreadableError, clean, plain_blocks

_HEADERS = ("Subject", "From", "To", "Cc", "Date")

ReadAttachment = Callable[[str, bytes, str | None], Iterable[Section]]
"""Name, content and declared encoding of an attachment -> its sections."""


def read_mail(
    data: bytes, read: ReadAttachment, note: Note, encoding: str | None = None
) -> Iterator[Section]:
    """Yield headers and body, then the readable attachments.

    Args:
        data: The file's contents.
        read: Reads an attachment.
        note: Called for attachments that are not read.
        encoding: Encoding of a body that does not declare its own and is not UTF-8.

    Raises:
        UnreadableError: If the e-mail has no body.
    """
    message = email.message_from_bytes(data, policy=email.policy.default)
    try:
        headers = [(name, clean(str(message[name]))) for name in _HEADERS if message[name]]
        bodies, attachments = _leaves(message)
    except Exception as error:  # a broken e-mail can raise anything
        reason = "not a readable e-mail"
        raise UnreadableError(reason, f"{type(error).__name__}: {error}") from error
    if not headers:
        reason = "not a readable e-mail"
        raise UnreadableError(reason, "it has no Subject, From, To or Date")
    text = "\n".join(f"{name}: {' '.join(value.split())}" for name, value in headers)
    text += "".join("\n\n" + _body(body, encoding) for body in bodies)
    subject = " ".join(dict(headers).get("Subject", "").split())
    place = {"title": subject} if subject else {}
    yield Section(text, len(data), plain_blocks(text), place)
    for part in attachments:
        kind = part.get_content_type()
        name = clean(part.get_filename() or kind)
        if "." not in name:
            name += mimetypes.guess_extension(kind) or ""
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):  # an attached e-mail
            inner: Any = part.get_payload()
            content = b"".join(bytes(each) for each in inner)
            name = f"{name.removesuffix('.eml')}.eml"
        try:
            for section in read(name, content, part.get_content_charset()):
                yield Section(
                    *(section.text, 0, section.blocks, {**section.place, "attachment": name}),
                    *(section.metadata, section.markdown),
                )
        except UnreadableError as error:
            note(f"an attachment: {error.reason}", ": ".join(filter(None, (name, error.detail))))


def _leaves(message: "MIMEPart[Any, Any]") -> tuple[list[Any], list[Any]]:
    """The texts of an e-mail, in order, and its attachments.

    Of alternatives, the first with plain text counts, else the first with any; the attachments of
    all count.
    """
    kind = message.get_content_type()
    if not message.is_multipart() or kind == "message/rfc822":
        is_text = kind in ("text/plain", "text/html") and not message.is_attachment()
        return ([message], []) if is_text else ([], [message])
    bodies: list[Any] = []
    attachments: list[Any] = []
    parts = [_leaves(part) for part in message.iter_parts()]
    if kind == "multipart/alternative":
        texts = [found for found, _ in parts if found]
        plain = [each for each in texts if each[0].get_content_subtype() == "plain"]
        bodies = (plain or texts or [[]])[0]
        # The rest are forms of the text, such as an invitation.
        attachments = [each for _, found in parts for each in found if each.is_attachment()]
        return bodies, attachments
    for found, others in parts:
        for text in found:  # a second text with a name is a file that is shown within the mail
            (attachments if bodies and text.get_filename() else bodies).append(text)
        attachments += others
    return bodies, attachments


def _body(part: "MIMEPart[Any, Any]", encoding: str | None) -> str:
    is_html = part.get_content_subtype() == "html"
    if part.get_content_charset() is None:
        data: Any = part.get_payload(decode=True)
        return read_html(data, encoding).text if is_html else decode(data, encoding)
    try:
        content: str = part.get_content()
    except (LookupError, UnicodeDecodeError) as error:
        reason = "its character set is unknown"
        raise UnreadableError(reason, str(error)) from error
    if "\ufffd" in content:
        reason = "text in another character set than it says"
        raise UnreadableError(reason, str(part.get_content_charset()))
    text = content.replace("\r\n", "\n").replace("\r", "\n")
    return html_section(text, 0).text if is_html else text
