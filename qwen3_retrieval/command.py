"""What the commands, such as `python -m qwen3_retrieval.ingest`, share."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

_PART = r"'[^']*'|\"[^\"]*\"|[^()'\"]"
CALL = rf"\w+\((?:{_PART}|\((?:{_PART})*\))*\)"
"""A call in a message, such as `rebuild_index('i.db', 'qwen3', index_type='FLAT')`."""


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows a module's docstring as it stands; options are not abbreviated.

    Args:
        name: Of the module below `qwen3_retrieval`.
        description: The docstring.
    """
    return argparse.ArgumentParser(
        prog=f"python -m qwen3_retrieval.{name}",
        description=(description or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def is_expected(error: Exception, package: str) -> bool:
    """Whether a person can mend it, so that its message is enough.

    Args:
        error: What a command ended with.
        package: Another library whose errors are told in the same way. It goes by name, because
            importing it may be slow and it need not be installed.
    """
    from qwen3_core.remote import ServerError

    if isinstance(error, (ValueError, OSError, ImportError, ServerError)):
        return True
    return any(kind.__module__.partition(".")[0] == package for kind in type(error).__mro__)


def in_one_line(error: Exception) -> str:
    """What an error says, on one line; of a component's settings the first that is wrong."""
    message = str(getattr(error, "message", error))
    if callable(details := getattr(error, "errors", None)):  # pydantic's, which adds a link
        first: dict[str, Any] = details()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
    return " ".join(message.split())


def with_options(message: str, options: Mapping[str, str]) -> str:
    """A message for callers of Python, with the command's options in place of the arguments.

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
