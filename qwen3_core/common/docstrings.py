"""Adds field descriptions to the docstrings of the frameworks' components, so `help` shows them."""

import inspect
import textwrap
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def fields_documented(component: C) -> C:
    """Class decorator for pydantic models: adds the fields' descriptions as an "Args:" section.

    The class's own fields come before inherited ones.
    """
    if not component.__doc__:  # removed by `python -OO`
        return component
    model: Any = component
    fields = model.model_fields
    own_first = dict.fromkeys(name for name in (*model.__annotations__, *fields) if name in fields)
    lines = [
        textwrap.indent(f"{name}: " + description.replace("\n", "\n    "), "    ")
        for name in own_first
        if (description := fields[name].description)
    ]
    component.__doc__ = "\n".join([inspect.cleandoc(component.__doc__), "", "Args:", *lines])
    return component
