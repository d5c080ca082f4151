"""Field descriptions in the docstrings of components, where `help` shows them."""

import inspect
import textwrap
from typing import TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)


def fields_documented(component: type[M]) -> type[M]:
    """Class decorator: append the fields' descriptions to the docstring as its "Args:" section."""
    if not component.__doc__:  # as under `python -OO`
        return component
    lines = [
        textwrap.indent(f"{name}: " + field.description.replace("\n", "\n    "), "    ")
        for name, field in component.model_fields.items()
        if field.description
    ]
    component.__doc__ = "\n".join([inspect.cleandoc(component.__doc__), "", "Args:", *lines])
    return component
