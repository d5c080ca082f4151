"""Field descriptions in the docstrings of the frameworks' components, where `help` shows them."""

import inspect
import textwrap
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def fields_documented(component: C) -> C:
    """Class decorator for pydantic models: their fields' descriptions as an "Args:" section."""
    if not component.__doc__:  # as under `python -OO`
        return component
    model: Any = component
    lines = [
        textwrap.indent(f"{name}: " + field.description.replace("\n", "\n    "), "    ")
        for name, field in model.model_fields.items()
        if field.description
    ]
    component.__doc__ = "\n".join([inspect.cleandoc(component.__doc__), "", "Args:", *lines])
    return component
