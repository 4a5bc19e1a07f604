"""HTTP/1.1 that does not wait for ever: who connects and asks nothing whole is cut."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class Prompt(H11Protocol):
    """Uvicorn's protocol, with SLOW seconds from the connection to the first request's head."""

    SLOW: ClassVar[float] = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        self.loop.call_later(self.SLOW, self._cut)

    def _cut(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()
