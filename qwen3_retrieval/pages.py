"""HTML by jinja2 templates, which stand beside the modules that use them.

Autoescape is on: documents, questions and answers are untrusted, and a template marks no text of
theirs as safe.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, macro: str | None = None, **values: Any) -> str:
    """Render a template, or one of its macros.

    Args:
        template: Path below `qwen3_retrieval`, such as "evaluation/page.html".
        macro: Name of a macro in it; None renders the whole template.
        values: The template's variables, or the macro's arguments.

    Raises:
        jinja2.UndefinedError: If the template uses a variable that is missing.
    """
    found = _environment().get_template(template)
    return found.render(values) if macro is None else str(getattr(found.module, macro)(**values))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("qwen3_retrieval", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
