"""An embedder or a reranker from its settings, in this process or on a server."""

from pathlib import Path
from typing import Any, TypedDict, Unpack

from qwen3_core.embedder import Embedder
from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server
from qwen3_core.reranker import Reranker
from qwen3_core.settings import Dtype


class Settings(TypedDict, total=False):
    """Settings of both, as documented at the classes; what is left out has its default."""

    base_url: str | None
    api_key: str | None
    server: Server | str | None
    revision: str | None
    device: str
    dtype: Dtype
    max_length: int | None
    instruction: str | None
    pack_tokens: int | None
    timeout: float | None


def settings_of(component: Any) -> Settings:
    """The settings that a framework's component has in fields of these names, its key as text."""
    found: Any = {name: getattr(component, name) for name in Settings.__annotations__}
    if found["api_key"] is not None:
        found["api_key"] = found["api_key"].get_secret_value()
    settings: Settings = found
    return settings


def make_embedder(
    model: str | Path, *, dimensions: int | None, **settings: Unpack[Settings]
) -> Embedder | RemoteEmbedder:
    """An embedder that runs the model here, or with a `base_url` asks a server.

    Raises:
        ValueError: If a setting is out of range, or is of no use where the model runs.
    """
    here, there = _divide(settings)
    if here is not None:
        return Embedder(model, dimensions=dimensions, **here)
    return RemoteEmbedder(model, dimensions=dimensions, **there)


def make_reranker(model: str | Path, **settings: Unpack[Settings]) -> Reranker | RemoteReranker:
    """A reranker that runs the model here, or with a `base_url` asks a server; errors as above."""
    here, there = _divide(settings)
    return RemoteReranker(model, **there) if here is None else Reranker(model, **here)


def _divide(settings: Settings) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The settings for a model in this process, or None, and those for one on a server."""
    every: dict[str, Any] = {**settings}
    remote = {name: every.pop(name, None) for name in ("base_url", "api_key", "server")}
    if remote["base_url"] is None:
        given = [name for name, value in remote.items() if value]
        if given:
            msg = f"{' and '.join(given)} without base_url: give the server's base_url as well"
            raise ValueError(msg)
        return every, {}
    defaults = {"device": "auto", "dtype": "auto", "pack_tokens": None}
    local = {name: every.pop(name, default) for name, default in defaults.items()}
    given = [f"{name}={value!r}" for name, value in local.items() if value != defaults[name]]
    if given:
        msg = (
            f"{', '.join(given)} is about a model in this process; with base_url the server "
            "decides: leave it out"
        )
        raise ValueError(msg)
    return None, remote | every
