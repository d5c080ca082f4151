"""Shows the docstrings in the reference pages as `help` does, with the descriptions of parameters.

mkdocstrings reads the sources, in which the decorators of `qwen3_core.common.docstrings` have not
run. This extension of its reader takes the docstrings of decorated classes and functions from the
imported ones. mkdocs.yml names it.
"""

from typing import Any

import griffe

from qwen3_core.common.docstrings import described

DECORATORS = ("fields_documented", "parameters_documented")


class Docstrings(griffe.Extension):
    """Replaces the docstrings of classes and functions with one of `DECORATORS`."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Visit everything in a package that was read."""
        self._visit(pkg)

    def _visit(self, parent: Any) -> None:
        for member in list(parent.members.values()):
            if member.is_alias:
                continue
            if member.is_class or member.is_function:
                names = {d.callable_path.rpartition(".")[2] for d in member.decorators}
                if names.intersection(DECORATORS):
                    _replace(member)
            if member.is_module or member.is_class:
                self._visit(member)


def _replace(member: Any) -> None:
    imported = griffe.dynamic_import(member.path)
    _set(member, imported)
    if member.is_class and "__init__" in member.members:
        _set(member.members["__init__"], imported.__init__)
    elif member.is_class:
        for name in described(imported):  # a pydantic model's fields, which "Args:" lists
            member.members.pop(name, None)


def _set(member: Any, imported: Any) -> None:
    if member.docstring is not None and imported.__doc__:
        member.docstring.value = imported.__doc__.rstrip()
