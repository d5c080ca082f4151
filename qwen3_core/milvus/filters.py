"""Filter expressions of Milvus."""

import json
import re
from collections.abc import Collection, Sequence
from typing import Final

Value = str | float | bool

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_WORDS_OF_MILVUS: Final = frozenset(
    ["and", "exists", "false", "in", "is", "like", "not", "null", "or", "true"]
)
"""What an expression reads as an operator or a constant, in lower or upper case."""

_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', re.DOTALL)

_JOINED: Final = re.compile(r"(?<![\w$.])[^\W\d]\w*(?:[-.]\w+)+")
"""A name with hyphens or dots in it, such as `doc-type`: Milvus reads a subtraction."""

_SPACED: Final = re.compile(r"(?<![\w$.])([^\W\d]\w*)[ \t]+(\w+)\s*(?:[=!<>]=?|\bin\b|\blike\b)")
"""Two words before a comparison, such as `Header 1 ==`."""

COMPARISONS: Final = ("==", ">", "<", ">=", "<=")


def literal(value: Value | Sequence[Value]) -> str:
    """A value, written so that it stands for itself in a filter expression, whatever it holds.

    Expressions are strings, so a value with a quote or a backslash in it would change their
    meaning.

    Example:
        ```python
        expression = f"author == {literal(author)} and year in {literal([2024, 2025])}"
        ```

    Args:
        value: A string, number or bool, or a list of them.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is NaN or infinite, or a string with a lone surrogate.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            msg = f"a filter's value holds a lone surrogate, which Milvus cannot store: {value!r}"
            raise ValueError(msg) from error
        # Nothing else: Milvus Lite does not know escapes such as \\u2028.
        return f'"{value.translate(_ESCAPES)}"'
    if isinstance(value, (bool, int, float)):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(literal(item) for item in value)}]"
    msg = (
        "a filter's value must be a string, number or bool, or a list of them, got "
        f"{type(value).__name__}: {value!r:.80}"
    )
    raise TypeError(msg)


def field(key: str) -> str:
    """A metadata key, written so that a filter expression reads it as one name.

    A key of ASCII letters, digits and underscores stands for itself. Any other, such as `doc-type`
    or `Header 1`, becomes `$meta["doc-type"]`: Milvus would read `doc-type` as a subtraction.

    Example:
        ```python
        expression = f"{field('doc-type')} == {literal('manual')}"
        ```

    Args:
        key: The key of a document's metadata.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it is empty or holds a lone surrogate.
    """
    if not isinstance(key, str):
        msg = f"a metadata key must be a string, got {type(key).__name__}: {key!r:.80}"
        raise TypeError(msg)
    if not key:
        msg = "a metadata key is empty: name the field"
        raise ValueError(msg)
    if _IDENTIFIER.fullmatch(key) and key.lower() not in _WORDS_OF_MILVUS:
        return key
    return f"$meta[{literal(key)}]"


def check_expression(expression: str | None) -> None:
    """Refuse an expression with a key that Milvus would misread.

    Milvus Lite finds nothing for `doc-type == "manual"`, without an error.

    Args:
        expression: A filter expression; None and "" are none.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it holds a name with a hyphen, a dot or a space that is not quoted.
    """
    if expression is None:
        return
    if not isinstance(expression, str):
        msg = (
            "a Milvus filter is an expression in a string, such as 'year > 2020', got "
            f"{type(expression).__name__}: {expression!r:.80}"
        )
        raise TypeError(msg)
    bare = _STRING.sub('""', expression)
    key = next((found[0] for found in _JOINED.finditer(bare)), None)
    if key is None:
        for found in _SPACED.finditer(bare):
            words = found.groups()
            if not any(word.lower() in _WORDS_OF_MILVUS for word in words):
                key = " ".join(words)
                break
    if key is not None:
        rest = f"; for a subtraction put spaces around the minus: {key.replace('-', ' - ')}"
        msg = (
            f"the filter {expression!r:.200} names a field {key!r}, which Milvus does not read as "
            f"one name: write it as $meta[{literal(key)}] (qwen3_core.milvus.field({key!r}))"
            f"{rest if '-' in key else ''}"
        )
        raise ValueError(msg)


def compare(
    key: str,
    operator: str,
    value: Value | Sequence[Value] | None,
    *,
    negate: bool = False,
    columns: Collection[str] = (),
    lite: bool = False,
) -> str:
    """One comparison as a filter expression, with LlamaIndex's operators.

    Negated, it holds for what the plain one does not hold for, rows without the key included, on
    Milvus Lite and on a server. (Their own `!=` differs there.)

    Args:
        key: A metadata key or one of `columns`.
        operator: "==", "!=", ">", "<", ">=", "<=", "in", "nin", "any", "all", "contains",
            "text_match" (the text begins so) or "is_empty".
        value: One value; a list for "in", "nin", "any" and "all"; None for "is_empty".
        negate: Write the opposite.
        columns: Fields of the collection's schema, which every row has.
        lite: Whether Milvus Lite will read it, which knows less.

    Raises:
        TypeError: If the value does not suit the operator.
        ValueError: If the operator is unknown, or cannot be written for this key or Milvus.
    """
    if operator in ("!=", "nin"):
        operator, negate = ("==" if operator == "!=" else "in"), not negate
    is_column = key in columns
    name = key if is_column else field(key)
    is_list = isinstance(value, (list, tuple))
    if operator == "is_empty":
        if not lite or name != key:
            msg = (
                f"the filter 'is_empty' on {key!r} cannot be written for "
                f"{'keys that are no identifiers' if lite else 'a Milvus server'}: give "
                f"string_expr='not (exists {name})', which finds the rows without the key"
            )
            raise ValueError(msg)
        empty_list = f"(json_contains_all({name}, []) and array_length({name}) == 0)"
        expression = f'(not (exists {name})) or {name} == "" or {empty_list}'
        return f"(not ({expression}))" if negate else f"({expression})"
    if value is None:
        msg = f"the filter on {key!r} compares with None: for rows without the key use IS_EMPTY"
        raise TypeError(msg)
    if is_list != (operator in ("in", "any", "all")):
        wanted = "one value" if is_list else "a list"
        msg = f"the filter {operator!r} on {key!r} takes {wanted}, got {value!r:.80}"
        raise TypeError(msg)
    if operator in COMPARISONS:
        expression = f"{name} {operator} {literal(value)}"
    elif operator == "in":
        expression = f"{name} in {literal(value)}"
        if lite and name != key:  # which takes identifiers alone before `in`
            items = value if isinstance(value, (list, tuple)) else ()
            expression = " or ".join(f"{name} == {literal(item)}" for item in items)
            expression = f"({expression or '1 == 2'})"
    elif operator in ("any", "all", "contains"):
        if lite and name != key:
            msg = (
                f"Milvus Lite cannot look into a list under the key {key!r}: rename the key to "
                "letters, digits and underscores, or use a server"
            )
            raise ValueError(msg)
        function = "array_contains" if operator == "contains" else f"array_contains_{operator}"
        expression = f"{function}({name}, {literal(value)})"
    elif operator == "text_match":
        expression = f"{name} like {literal(_prefix(key, value, lite=lite))}"
    else:
        msg = f"Milvus has no filter operator {operator!r} (on {key!r}): use string_expr"
        raise ValueError(msg)
    if not negate:
        return expression
    # A comparison with a key that is not there is neither true nor false in Milvus Lite.
    return (
        f"(not ({expression}))" if is_column else f"((not (exists {name})) or not ({expression}))"
    )


def _prefix(key: str, value: object, *, lite: bool) -> str:
    if not isinstance(value, str):
        msg = f"the filter 'text_match' on {key!r} takes a string, got {value!r:.80}"
        raise TypeError(msg)
    if any(sign in value for sign in "%_\\"):
        if not lite:
            msg = (
                f"the filter 'text_match' on {key!r} holds %, _ or a backslash, which Milvus reads "
                f"as wildcards: {value!r:.80}. Use == or string_expr"
            )
            raise ValueError(msg)
        value = re.sub(r"([%_\\])", r"\\\1", value)
    return f"{value}%"
