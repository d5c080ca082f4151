"""What the vectors of a collection were made with, so that others are not mixed with them."""

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import PurePath
from typing import Final, Literal

from qwen3_core._version import __version__

_SNAPSHOT: Final = re.compile(r"models--([^/\\]+)[/\\]snapshots[/\\][^/\\]+[/\\]?$")
"""A folder of the hub's cache."""

_OLD_DIGITS: Final = 16
"""Hexadecimal digits of a digest as collections kept it until release 0.1; today's has 32."""


@dataclass(frozen=True)
class Fingerprint:
    """How vectors were made. Two whose known settings agree give the same vectors."""

    model: str
    """As it was named: on the hub, on a server, or a folder."""
    revision: str | None
    """As it was asked for on the hub; None for folders and servers, which have none."""
    weights: str | None
    """Digest of the model's files (`qwen3_core.model.files`); None where they are not here, as
    with a model on a server."""
    dimensions: int
    max_length: int
    """Tokens that were read of one text at most."""
    pooling: str = "last_token"
    document_prompt: str = "none"
    package_version: str = __version__
    commit: str | None = None
    """On the hub, of the files; None where it is not known."""
    old_weights: str | None = field(default=None, compare=False)
    """The digest in the form that collections kept until release 0.1; it is not kept."""

    def to_json(self) -> str:
        """As a string, as collections keep it."""
        data = asdict(self)
        del data["old_weights"]
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read what `to_json` wrote, this package's, an older one's, or a later one's with more.

        Raises:
            ValueError: If it is something else.
        """
        try:
            data = json.loads(text)
            known = {f.name: data[f.name] for f in fields(cls) if f.name not in _NOT_IN_OLD}
        except (TypeError, KeyError, json.JSONDecodeError, RecursionError) as error:
            msg = f"not a fingerprint of vectors: {text!r:.200}"
            raise ValueError(msg) from error
        pinned = known["revision"] if is_commit(known["revision"]) else None
        found = cls(**known, commit=data.get("commit", pinned))
        if found.weights is not None and len(found.weights) == _OLD_DIGITS:
            return replace(found, weights=None, old_weights=found.weights)
        return found

    def compared_by(self, other: "Fingerprint") -> Literal["weights", "commit", "name"]:
        """What tells whether two models are one: the surest that both sides know."""
        if self._digests(other):
            return "weights"
        return "commit" if self.commit and other.commit else "name"

    def _digests(self, other: "Fingerprint") -> tuple[str, str] | None:
        """Digests of one form."""
        if self.weights and other.weights:
            return self.weights, other.weights
        if self.old_weights and other.old_weights:
            return self.old_weights, other.old_weights
        return None

    def differences(self, other: "Fingerprint") -> dict[str, tuple[object, object]]:
        """The settings that change vectors and differ: {name: (value here, value of the other)}.

        A model is known by its weights, however it is named: on the hub, by commit, or as a
        folder. Where a side does not know them, by the commit; else by the last part of its name:
        "Qwen/Qwen3-Embedding-0.6B" on the hub and "/models/Qwen3-Embedding-0.6B" on a server are
        one model. Then a revision counts where both have one, unless one is a commit and the
        other a branch or tag, which may have been that commit. The package's version does not
        count.
        """
        found: dict[str, tuple[object, object]] = {}
        digests, by = self._digests(other), self.compared_by(other)
        if digests:
            if digests[0] != digests[1]:
                found["model"] = (_name(self, digests[0]), _name(other, digests[1]))
        elif by == "commit":
            if self.commit != other.commit:
                found["commit"] = (self.commit, other.commit)
        else:
            if short_name(self.model) != short_name(other.model):
                found["model"] = (self.model, other.model)
            revisions = (self.revision, other.revision)
            undecided = is_commit(self.revision) != is_commit(other.revision)
            if None not in revisions and revisions[0] != revisions[1] and not undecided:
                found["revision"] = revisions
        for name in ("dimensions", "max_length", "pooling", "document_prompt"):
            pair = (getattr(self, name), getattr(other, name))
            if pair[0] != pair[1]:
                found[name] = pair
        return found


_NOT_IN_OLD: Final = {"commit", "old_weights"}


def is_commit(revision: object) -> bool:
    """Whether a revision is a full commit hash."""
    return isinstance(revision, str) and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def short_name(model: str) -> str:
    """The last part of a model's name, as its owner wrote it.

    A snapshot in the hub's cache has the name of its repository, and a folder of ModelScope, which
    writes "___" for a dot, that of the model.
    """
    if match := _SNAPSHOT.search(model):
        return match[1].rpartition("--")[2]
    return PurePath(model).name.replace("___", ".")


def _name(of: Fingerprint, digest: str) -> str:
    return f"{of.model} (weights {digest})"
