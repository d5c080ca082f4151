"""What the vectors of a collection were made with, so that others are not mixed with them."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Final

from qwen3_core._version import __version__
from qwen3_core.settings import BUNDLED, TINY, Kind

SAMPLES: Final = 64
SAMPLE_BYTES: Final = 4096
"""Read of each weight file for the digest: enough to tell a fine-tuned model from its origin."""


@dataclass(frozen=True)
class Fingerprint:
    """How vectors were made. Two whose known settings agree give the same vectors."""

    model: str
    """As it was named: on the hub, on a server, or a folder."""
    revision: str | None
    """On the hub; None for folders and servers, which have none."""
    weights: str | None
    """Digest of the model's files, where they lie in a folder; None elsewhere."""
    dimensions: int
    max_length: int
    """Tokens that were read of one text at most."""
    pooling: str = "last_token"
    document_prompt: str = "none"
    package_version: str = __version__

    def to_json(self) -> str:
        """As a string, as collections keep it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read what `to_json` wrote, this package's or a later one's with more in it.

        Raises:
            ValueError: If it is something else.
        """
        try:
            data = json.loads(text)
            known = {field.name: data[field.name] for field in fields(cls)}
        except (TypeError, KeyError, json.JSONDecodeError, RecursionError) as error:
            msg = f"not a fingerprint of vectors: {text!r:.200}"
            raise ValueError(msg) from error
        return cls(**known)

    def differences(self, other: "Fingerprint") -> dict[str, tuple[object, object]]:
        """The settings that change vectors and differ: {name: (value here, value of the other)}.

        A folder is known by its files, so that it can be moved. Without files on both sides a
        model is known by the last part of its name: "Qwen/Qwen3-Embedding-0.6B" on the hub and
        "/models/Qwen3-Embedding-0.6B" on a server are one model. A revision counts where both have
        one. The package's version does not count.
        """
        pairs: dict[str, tuple[object, object]] = {
            name: (getattr(self, name), getattr(other, name))
            for name in ("revision", "dimensions", "max_length", "pooling", "document_prompt")
        }
        if None in pairs["revision"]:
            del pairs["revision"]
        found = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if self.weights and other.weights:
            same = self.weights == other.weights
        else:
            same = PurePath(self.model).name == PurePath(other.model).name
        if not same:
            names = (_name(self), _name(other))
            found = {"model": names, **found}
        return found


def _name(of: Fingerprint) -> str:
    return f"{of.model} (weights {of.weights})" if of.weights else of.model


def weights_digest(model: str, kind: Kind = "embedding") -> str | None:
    """A digest of a model folder: 16 hexadecimal digits; None for a name on the hub.

    It covers config.json, tokenizer.json, and of each *.safetensors its size and `SAMPLES` pieces
    of `SAMPLE_BYTES` from its header to its end, so it is quick for a model of any size.

    Args:
        model: Name on the hub, folder, or "tiny" for the bundled model.
        kind: Which of the bundled pair.
    """
    folder = BUNDLED[kind] if model == TINY else Path(model).expanduser()
    if not folder.is_dir():
        return None
    files = [folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]
    stats = [(path, path.stat()) for path in sorted(files) if path.is_file()]
    return _digest(tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats))


@lru_cache(maxsize=16)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                for i in range(SAMPLES):
                    file.seek(max(size - SAMPLE_BYTES, 0) * i // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
            else:
                digest.update(file.read())
    return digest.hexdigest()[:16]
