"""HTTP/1.1 that does not wait for ever: who connects and asks nothing whole is cut."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class Prompt(H11Protocol):
    """Uvicorn's protocol, with SLOW seconds from the connection, or an answer, to the next head."""

    SLOW: ClassVar[float] = 10.0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        self._wait(None)

    def on_response_complete(self) -> None:
        """Begin to wait for the head of the next."""
        answered = self.cycle
        super().on_response_complete()
        self._wait(answered)

    def _wait(self, answered: Any) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = self.loop.call_later(self.SLOW, self._cut, answered)

    def _cut(self, answered: Any) -> None:
        if self.cycle is answered and not self.transport.is_closing():
            self.transport.close()
