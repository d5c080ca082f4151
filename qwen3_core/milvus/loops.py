"""One asynchronous Milvus client for each event loop, since a client belongs to one."""

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary


class LoopClients:
    """Makes a client in each event loop that asks for one."""

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
