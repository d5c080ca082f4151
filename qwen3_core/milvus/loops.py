"""One asynchronous Milvus client per event loop, because a client is bound to one."""

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary


class LoopClients:
    """Creates one client per event loop, on demand."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    def get(self) -> Any:
        """The running loop's client.

        Raises:
            RuntimeError: If no event loop runs.
        """
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._make()
        return client
