"""Identifies how a collection's vectors were made, so that incompatible ones are not mixed in."""

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import PurePath
from typing import Final, Literal

from qwen3_core._version import __version__

_SNAPSHOT: Final = re.compile(r"models--([^/\\]+)[/\\]snapshots[/\\][^/\\]+[/\\]?$")
"""A snapshot folder in the hub's cache."""

_OLD_DIGITS: Final = 16
"""Hexadecimal digits of the digests in collections until release 0.1; the present ones have 32."""


@dataclass(frozen=True)
class Fingerprint:
    """How vectors were made. Fingerprints whose known settings agree mean the same vectors."""

    model: str
    """The model as the user named it: on the hub, on a server, or a folder."""
    revision: str | None
    """The requested revision on the hub; None for folders and servers, which have none."""
    weights: str | None
    """Digest of the model's files (`qwen3_core.model.files`); None if they are not on this machine,
    as with a model on a server."""
    dimensions: int
    max_length: int
    """The most tokens that were read of one text."""
    pooling: str = "last_token"
    document_prompt: str = "none"
    package_version: str = __version__
    commit: str | None = None
    """The files' commit on the hub; None if unknown."""
    metadata_keys: tuple[str, ...] | None = None
    """The metadata that the vectors include, before the text (`qwen3_core.metadata`). None: none
    in LangChain; in LlamaIndex, each node decides."""
    old_weights: str | None = field(default=None, compare=False)
    """The digest in the form of collections until release 0.1; not stored."""

    def to_json(self) -> str:
        """The string that collections store."""
        data = asdict(self)
        del data["old_weights"]
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read the output of `to_json`, of this release, an older one, or a later one with more.

        Raises:
            ValueError: If the text is anything else.
        """
        try:
            data = json.loads(text)
            known = {f.name: data[f.name] for f in fields(cls) if f.name not in _NOT_IN_OLD}
            keys = data.get("metadata_keys")
            keys = None if keys is None else tuple(map(str, keys))
        except (TypeError, KeyError, json.JSONDecodeError, RecursionError) as error:
            msg = f"not a fingerprint of vectors: {text!r:.200}"
            raise ValueError(msg) from error
        pinned = known["revision"] if is_commit(known["revision"]) else None
        found = cls(**known, commit=data.get("commit", pinned), metadata_keys=keys)
        if found.weights is not None and len(found.weights) == _OLD_DIGITS:
            return replace(found, weights=None, old_weights=found.weights)
        return found

    def compared_by(self, other: "Fingerprint") -> Literal["weights", "commit", "name"]:
        """How two models are compared: the most reliable identity that both sides know."""
        if self._digests(other):
            return "weights"
        return "commit" if self.commit and other.commit else "name"

    def _digests(self, other: "Fingerprint") -> tuple[str, str] | None:
        """Both digests, in the same form."""
        if self.weights and other.weights:
            return self.weights, other.weights
        if self.old_weights and other.old_weights:
            return self.old_weights, other.old_weights
        return None

    def differences(self, other: "Fingerprint") -> dict[str, tuple[object, object]]:
        """The settings that change vectors and differ: {name: (value here, value of the other)}.

        Models are compared by their weights, however they are named: on the hub, by commit, or as a
        folder. If one side does not know its weights, they are compared by commit, else by the last
        part of the name: "Qwen/Qwen3-Embedding-0.6B" on the hub and
        "/models/Qwen3-Embedding-0.6B" on a server are the same model. In that case revisions are
        compared if both sides have one, unless one is a commit and the other a branch or tag, which
        may have pointed to that commit. `metadata_keys` are compared if the other has some, or ().
        The package's version is not compared.
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
        if other.metadata_keys is not None and (self.metadata_keys or ()) != other.metadata_keys:
            found["metadata_keys"] = (list(self.metadata_keys or ()), list(other.metadata_keys))
        return found


_NOT_IN_OLD: Final = {"commit", "metadata_keys", "old_weights"}


def is_commit(revision: object) -> bool:
    """Whether a revision is a full commit hash."""
    return isinstance(revision, str) and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def short_name(model: str) -> str:
    """The last part of a model's name, as its owner wrote it.

    For a snapshot in the hub's cache this is the repository's name. In ModelScope's folder names,
    "___" stands for a dot.
    """
    if match := _SNAPSHOT.search(model):
        return match[1].rpartition("--")[2]
    return PurePath(model).name.replace("___", ".")


def _name(of: Fingerprint, digest: str) -> str:
    return f"{of.model} (weights {digest})"
