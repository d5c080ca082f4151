"""Helpers of the commands, such as `python -m qwen3_retrieval.ingest`."""

import argparse
from collections.abc import Mapping
from typing import Any


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


def in_one_line(error: Exception, options: Mapping[str, str]) -> str:
    """An error's message on one line, with the command's option if it is about an argument.

    Of several invalid settings it is the first one's.

    Args:
        error: The error that ended a command.
        options: Options by the argument's name, such as {"base_url": "--base-url"}.
    """
    if callable(details := getattr(error, "errors", None)):  # pydantic's, which adds a link
        first: dict[str, Any] = details()[0]
        error = first.get("ctx", {}).get("error", first["msg"])
    message = " ".join(str(getattr(error, "message", error)).split())
    parameter = getattr(error, "parameter", "")
    if parameter not in options:
        return message
    if message.startswith(parameter):
        return options[parameter] + message.removeprefix(parameter)
    return f"{options[parameter]}: {message}"
