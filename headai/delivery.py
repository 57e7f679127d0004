"""How the items of one operation reach a client, on a WebSocket or an event stream, however slowly it reads.

Nothing queues here. An item that cannot be sent waits, the operation makes no further one meanwhile, and a subscription
whose client does not take an item in time ends with the cursor to go on from. So a client that stopped reading costs
the buffer of its connection and one item an operation, and nobody else waits for it.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Any

from monitoring.metrics import METRICS, Transport
from schema.failures import slow_consumer


class Delivery:
    """`cursor` is that of the last item that was sent, where items have one; `answered`: whether there was one."""

    def __init__(self, transport: Transport, patience: timedelta) -> None:
        self.cursor: str | None = None
        self.answered = False
        self._transport: Transport = transport
        self._patience = patience.total_seconds()

    async def item(self, response: Mapping[str, Any], sending: Awaitable[None]) -> None:
        """Send an item. Raises `ApiError` SLOW_CONSUMER when the client does not take it; then nothing of it was sent.

        The first waits as long as the client stays: the answer of a mutation cannot be had again.
        """
        if self.answered:
            await self.in_time(sending)
        else:
            await sending
        self.answered = True
        self.cursor = cursor_of(response) or self.cursor

    async def in_time(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await sending
        except TimeoutError:
            METRICS.slow_consumer_ended(self._transport)
            raise slow_consumer(self.cursor) from None


def cursor_of(response: Mapping[str, Any]) -> str | None:
    """The cursor of a subscription's item, where it was selected."""
    fields = list((response.get("data") or {}).values())
    cursor = fields[0].get("cursor") if len(fields) == 1 and isinstance(fields[0], dict) else None
    return cursor if isinstance(cursor, str) else None
