"""Whether a chat template is the published rerankers' prompt."""

import re
from typing import Any

from qwen3_core.prompts import TASKS, rerank_prompt

QUERY, DOCUMENT, TASK = "a query 91", "a document 92", "An instruction 93"
"""Placeholder texts for a template."""

TURNS = [{"role": "query", "content": QUERY}, {"role": "document", "content": DOCUMENT}]
"""A pair as sentence-transformers passes it; the instruction is a system turn before them."""


class ForeignTemplateError(ValueError):
    """A chat template makes another prompt than the published one."""


def instruction_in(template: str) -> str | None:
    """The default instruction of a chat template that makes the published prompt.

    Returns:
        The instruction; None for a template without query and document turns, such as a chat
        model's, which says nothing about reranking.

    Raises:
        ForeignTemplateError: If it makes another prompt from a query and a document; shows where
            the two begin to differ.
    """
    plain = _render(template, TURNS)
    if plain is None or (QUERY not in plain and DOCUMENT not in plain):
        return None
    if _is_of_a_chat_model(template, plain):
        return None
    before, after = rerank_prompt("\0", QUERY, DOCUMENT).split("\0")
    match = re.fullmatch(f"{re.escape(before)}(.*?){re.escape(after)}", plain, re.DOTALL)
    if match is None:
        published = rerank_prompt(TASKS["web_search"], QUERY, DOCUMENT)
        raise ForeignTemplateError(_difference(plain, published))
    if (change := _change_in(template)) is not None:
        raise ForeignTemplateError(change)
    for form in (str, _odd):
        task, query, document = map(form, (TASK, QUERY, DOCUMENT))
        pair = [{"role": "query", "content": query}, {"role": "document", "content": document}]
        for turns, instruction in (
            ([{"role": "system", "content": task}, *pair], task),
            (pair, match[1]),
        ):
            rendered = _render(template, turns) or ""
            expected = rerank_prompt(instruction, query, document)
            if rendered != expected:
                raise ForeignTemplateError(_difference(rendered, expected))
    return match[1]


def _is_of_a_chat_model(template: str, plain: str) -> bool:
    """Whether it takes query and document as turns of roles that it does not know.

    Args:
        template: The template.
        plain: What it makes of `TURNS`.
    """
    if "some-role" in (_render(template, [{"role": "some-role", "content": QUERY}]) or ""):
        return True  # it writes the name of any role
    unknown, chat = (
        _render(template, [turn | {"role": role} for turn, role in zip(TURNS, roles, strict=True)])
        for roles in (("some-role", "some-role"), ("user", "assistant"))
    )
    return plain == unknown and chat not in (None, unknown)


def _odd(text: str) -> str:
    """A text that trimming, escaping, truncating or a change of case would change."""
    return f"  {text}\tTwo  Words\r\n\n<b>&\"'</b> \u00c9 {'long ' * 4000}\n "


def _change_in(template: str) -> str | None:
    """How the template alters its inputs in ways the test renderings would miss; None if not."""
    from jinja2 import Environment, nodes

    tree = Environment(autoescape=False, extensions=["jinja2.ext.loopcontrols"]).parse(template)  # noqa: S701 - it renders nothing
    for node in tree.find_all((nodes.Filter, nodes.Call, nodes.Compare)):
        if isinstance(node, nodes.Filter) and node.name in _CHANGING:
            return f"it changes texts by the filter {node.name!r}"
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
            name = node.node.attr
            if hasattr(str, name):
                return f"it reads or changes texts by {name}()"
        if isinstance(node, nodes.Compare) and not _compares_names(node):
            for constant in node.find_all(nodes.Const):
                if isinstance(constant.value, str) and constant.value not in _COMPARED:
                    return f"it compares something with {constant.value!r}"
    return None


def _compares_names(node: Any) -> bool:
    """Whether a comparison is one of constants with a turn's role or a part's type."""
    from jinja2 import nodes

    sides = [node.expr, *(operand.expr for operand in node.ops)]
    return all(
        _is_name_of(side)
        or isinstance(side, nodes.Const)
        or (
            isinstance(side, nodes.List | nodes.Tuple)
            and all(isinstance(item, nodes.Const) for item in side.items)
        )
        for side in sides
    )


def _is_name_of(node: Any) -> bool:
    """Whether it is `x.role`, `x["type"]` or the like."""
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return node.attr in ("role", "type")
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return node.arg.value in ("role", "type")
    return False


_CHANGING = ("format", "random", "replace", "reverse", "striptags", "truncate", "wordwrap")
_COMPARED = {
    *("", "system", "query", "document", "passage", "instruction", "user", "assistant", "tool"),
    *("developer", "function", "role", "content", "type", "text"),
}
"""Roles and keys of turns."""


def _difference(found: str, published: str) -> str:
    pairs = enumerate(zip(found, published, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(found), len(published)))
    shown = slice(max(at - 20, 0), at + 30)
    return f"it renders {found[shown]!r} where the published prompt has {published[shown]!r}"


def _render(template: str, turns: list[dict[str, str]]) -> str | None:
    """A chat template's text for these turns; None if it does not accept them."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts: Any = render_jinja_template([turns], chat_template=template)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError):
        return None
    return str(texts[0][0])
