"""Filter expressions of Milvus."""

import json
import math
import re
from collections.abc import Collection, Sequence
from typing import Final

Value = str | float | bool

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_WORDS_OF_MILVUS: Final = frozenset(
    ["and", "exists", "false", "in", "is", "like", "not", "null", "or", "true"]
)
"""Operators and constants of expressions, in lower or upper case."""

_STRING: Final = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', re.DOTALL)

_JOINED: Final = re.compile(r"(?<![\w$.])[^\W\d]\w*(?:[-.]\w+)+")
"""A name with hyphens or dots, such as `doc-type`, which Milvus reads as a subtraction."""

_SPACED: Final = re.compile(r"(?<![\w$.])([^\W\d]\w*)[ \t]+(\w+)\s*(?:[=!<>]=?|\bin\b|\blike\b)")
"""Two words before a comparison, such as `Header 1 ==`."""

MOST_ALTERNATIVES: Final = 64
"""Most values of `in` that are written as alternatives for Milvus Lite."""

COMPARISONS: Final = ("==", ">", "<", ">=", "<=")


def literal(value: Value | Sequence[Value]) -> str:
    """Quote and escape a value for a filter expression.

    Expressions are strings, so an unescaped quote or backslash in a value would change their
    meaning.

    Example:
        ```python
        expression = f"author == {literal(author)} and year in {literal([2024, 2025])}"
        ```

    Args:
        value: A string, number or bool, or a list of them.

    Raises:
        TypeError: If it is anything else.
        ValueError: If it is NaN, infinite or beyond 64 bits, or a string with a lone surrogate.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            msg = f"a filter's value holds a lone surrogate, which Milvus cannot store: {value!r}"
            raise ValueError(msg) from error
        # No other escapes: Milvus Lite does not know \\u2028 and the like.
        return f'"{value.translate(_ESCAPES)}"'
    if isinstance(value, (bool, int, float)):
        fits = math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63
        if not fits:
            msg = f"a filter's number must be finite and fit into 64 bits, got {value!r:.80}"
            raise ValueError(msg)
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(literal(item) for item in value)}]"
    msg = (
        "a filter's value must be a string, number or bool, or a list of them, got "
        f"{type(value).__name__}: {value!r:.80}"
    )
    raise TypeError(msg)


def field(key: str) -> str:
    """Write a metadata key so that a filter expression reads it as one name.

    A key of ASCII letters, digits and underscores is unchanged. Any other, such as `doc-type` or
    `Header 1`, becomes `$meta["doc-type"]`: Milvus would read `doc-type` as a subtraction.

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
        expression: A filter expression; None and "" mean no filter.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it contains an unquoted name with a hyphen, a dot or a space.
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


def check_partitions(name: str, partitions: object) -> None:
    """Refuse an empty list of partitions, with which Milvus searches all.

    Args:
        name: The argument's name.
        partitions: Its value; None means all.

    Raises:
        ValueError: If it is empty.
    """
    if isinstance(partitions, Sequence) and not partitions:
        msg = f"{name}={partitions!r} names no partition: leave it out to search all"
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
    """Write one comparison as a filter expression, with LlamaIndex's operators.

    With `negate`, it matches every row that the plain comparison does not match, including rows
    without the key, on Milvus Lite and on a server. (Their own `!=` treats those rows differently.)

    Args:
        key: A metadata key or one of `columns`.
        operator: "==", "!=", ">", "<", ">=", "<=", "in", "nin", "any", "all", "contains",
            "text_match" (the text contains the value) or "is_empty".
        value: One value; a list for "in", "nin", "any" and "all"; None for "is_empty".
        negate: Whether to write the negation.
        columns: Fields of the collection's schema, which every row has.
        lite: Whether it is for Milvus Lite, which supports less.

    Raises:
        TypeError: If the value does not fit the operator.
        ValueError: If the operator is unknown, or not supported for this key or by Milvus Lite.
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
        items = value if isinstance(value, (list, tuple)) else ()
        # Milvus Lite accepts only identifiers before `in`, and fails on rows with a list there.
        if lite and not is_column and (name != key or len(items) <= MOST_ALTERNATIVES):
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
        expression = f"{name} like {literal(_infix(key, value, lite=lite))}"
    else:
        msg = f"Milvus has no filter operator {operator!r} (on {key!r}): use string_expr"
        raise ValueError(msg)
    if not negate:
        return expression
    # In Milvus Lite a comparison with a missing key is neither true nor false.
    return (
        f"(not ({expression}))" if is_column else f"((not (exists {name})) or not ({expression}))"
    )


def _infix(key: str, value: object, *, lite: bool) -> str:
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
    return f"%{value}%"
