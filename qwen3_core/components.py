"""An embedder or a reranker from its settings, in this process or on a server."""

from pathlib import Path

from qwen3_core.embedder import Embedder
from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server
from qwen3_core.reranker import Reranker
from qwen3_core.settings import Dtype


def make_embedder(
    model: str | Path,
    *,
    base_url: str | None,
    api_key: str | None,
    server: Server | str | None,
    revision: str | None,
    device: str,
    dtype: Dtype,
    max_length: int | None,
    dimensions: int | None,
    instruction: str | None,
    pack_tokens: int | None,
    timeout: float | None,
) -> Embedder | RemoteEmbedder:
    """An embedder that runs the model here, or with a `base_url` asks a server.

    Arguments as of the two classes.

    Raises:
        ValueError: If a setting is out of range, or is of no use where the model runs.
    """
    if base_url is None:
        _refuse_server_settings(api_key, server)
        return Embedder(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            max_length=max_length,
            dimensions=dimensions,
            instruction=instruction,
            pack_tokens=pack_tokens,
            timeout=timeout,
        )
    _refuse_local_settings(device, dtype, pack_tokens)
    return RemoteEmbedder(
        model,
        base_url=base_url,
        api_key=api_key,
        server=server,
        revision=revision,
        max_length=max_length,
        dimensions=dimensions,
        instruction=instruction,
        timeout=timeout,
    )


def make_reranker(
    model: str | Path,
    *,
    base_url: str | None,
    api_key: str | None,
    server: Server | str | None,
    revision: str | None,
    device: str,
    dtype: Dtype,
    max_length: int | None,
    instruction: str | None,
    pack_tokens: int | None,
    timeout: float | None,
) -> Reranker | RemoteReranker:
    """A reranker that runs the model here, or with a `base_url` asks a server.

    Arguments as of the two classes.

    Raises:
        ValueError: If a setting is out of range, or is of no use where the model runs.
    """
    if base_url is None:
        _refuse_server_settings(api_key, server)
        return Reranker(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            max_length=max_length,
            instruction=instruction,
            pack_tokens=pack_tokens,
            timeout=timeout,
        )
    _refuse_local_settings(device, dtype, pack_tokens)
    return RemoteReranker(
        model,
        base_url=base_url,
        api_key=api_key,
        server=server,
        revision=revision,
        max_length=max_length,
        instruction=instruction,
        timeout=timeout,
    )


def _refuse_server_settings(api_key: str | None, server: Server | str | None) -> None:
    given = [name for name, value in (("api_key", api_key), ("server", server)) if value]
    if given:
        msg = f"{' and '.join(given)} without base_url: give the server's base_url as well"
        raise ValueError(msg)


def _refuse_local_settings(device: str, dtype: str, pack_tokens: int | None) -> None:
    given = [
        f"{name}={value!r}"
        for name, value, default in (
            ("device", device, "auto"),
            ("dtype", dtype, "auto"),
            ("pack_tokens", pack_tokens, None),
        )
        if value != default
    ]
    if given:
        msg = (
            f"{', '.join(given)} is about a model in this process; with base_url the server "
            "decides: leave it out"
        )
        raise ValueError(msg)
