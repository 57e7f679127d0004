"""One peer as a process: `python -m benchmarks.peers.serve`, told on standard input what to serve and where."""

import asyncio
import sys
from typing import Any
from uuid import UUID

import orjson
import uvicorn
import uvloop

from benchmarks.peers import bare, documented, points

PEERS: dict[str, Any] = {"bare": bare.opened, "documented": documented.opened, "points": points.opened}


async def serve(*, peer: str, port: int, database_url: str, viewer: str, run: str) -> None:
    """Serve until SIGTERM, as Head AI is served: uvicorn with uvloop and httptools, one worker, no access log."""
    async with PEERS[peer](database_url=database_url, viewer=UUID(viewer), run=UUID(run)) as app:
        config = uvicorn.Config(
            app,
            port=port,
            loop="none",
            http="httptools",
            ws="none",
            access_log=False,
            log_level="warning",
            lifespan="off",
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(**orjson.loads(sys.stdin.buffer.readline())))
