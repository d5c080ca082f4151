"""Helpers of the commands, such as `python -m qwen3_retrieval.ingest`."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

_PART = r"'[^']*'|\"[^\"]*\"|[^()'\"]"
CALL = rf"\w+\((?:{_PART}|\((?:{_PART})*\))*\)"
"""A call in a message, such as `rebuild_index('i.db', 'qwen3', index_type='FLAT')`."""


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows a module's docstring unchanged; abbreviated options are refused.

    Args:
        name: Name of the module below `qwen3_retrieval`.
        description: The docstring.
    """
    return argparse.ArgumentParser(
        prog=f"python -m qwen3_retrieval.{name}",
        description=(description or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def is_expected(error: Exception, package: str) -> bool:
    """Whether the user can fix the cause, so that the message is enough without a traceback.

    Args:
        error: The error that ended a command.
        package: Another library whose errors are expected too. It is given by name, because
            importing it may be slow and it may not be installed.
    """
    from qwen3_core.remote import ServerError

    if isinstance(error, (ValueError, OSError, ImportError, ServerError)):
        return True
    return any(kind.__module__.partition(".")[0] == package for kind in type(error).__mro__)


def in_one_line(error: Exception) -> str:
    """An error's message on one line; for several invalid settings, the first one's."""
    message = str(getattr(error, "message", error))
    if callable(details := getattr(error, "errors", None)):  # pydantic's, which adds a link
        first: dict[str, Any] = details()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
    return " ".join(message.split())


def with_options(message: str, options: Mapping[str, str]) -> str:
    """Replace Python arguments in an error message by the command's options.

    An argument is told from a word by its "=", by an underscore, or because the message begins with
    it; what stands in quotes, in a path or in a call's parentheses stays.

    Args:
        message: What an error says, on one line.
        options: Options by the argument's name, such as {"base_url": "--base-url"}.
    """
    for name, option in options.items():
        word = rf"(?<![\w/.'\"(-]){name}"
        message = _outside_calls(rf"{word}=(?=\S)", f"{option} ", message)
        place = word if "_" in name or name == "uri" else rf"^{name}"
        message = _outside_calls(rf"{place}(?![\w/.'\"=-])", option, message)
    return message


def _outside_calls(pattern: str, replacement: str, message: str) -> str:
    return re.sub(rf"({CALL})|{pattern}", lambda found: found[1] or replacement, message)
