"""What the commands, such as `python -m qwen3_core.ingest`, share."""

import argparse


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows a module's docstring as it stands; options are not abbreviated.

    Args:
        name: Of the module below `qwen3_core`.
        description: The docstring.
    """
    return argparse.ArgumentParser(
        prog=f"python -m qwen3_core.{name}",
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
    """What an error says, on one line."""
    return " ".join(str(getattr(error, "message", error)).split())
