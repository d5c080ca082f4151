"""The corpus of attacks: texts that a document, a query or an instruction might hold.

`attacks.json` is a list of `{"name", "target", "text"}`: the target is the "judge", which is the
reranker (and the embedder before it), or the "llm" that answers. Texts are Python format strings
with the field `query`.
"""

import json
from pathlib import Path
from typing import Final

QUERY: Final = "How is data stored in Milvus?"
DOCUMENT: Final = "Cats sleep for most of the day."

_ALL = json.loads(Path(__file__).with_name("attacks.json").read_text(encoding="utf-8"))


def attacks(target: str | None = None, query: str = QUERY) -> dict[str, str]:
    """Name -> text of the attacks on a target, by default on both."""
    return {
        attack["name"]: attack["text"].format(query=query)
        for attack in _ALL
        if target in (None, attack["target"])
    }
