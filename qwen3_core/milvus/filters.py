"""Filter expressions of Milvus."""

import json
from collections.abc import Sequence
from typing import Final

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def literal(value: str | float | bool | Sequence[str | float | bool]) -> str:
    """A value, written so that it stands for itself in a filter expression, whatever it holds.

    Expressions are strings, so a value with a quote or a backslash in it would change their meaning
    (and LlamaIndex's own `MetadataFilters` does not escape backslashes).

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
