"""Fails when the tables in the code are not those that the migrations make, on a PostgreSQL of its own."""

import asyncio
import sys
import tempfile
from pathlib import Path

from db.migrate import SchemaDiffers, check, upgrade
from embedded.servers import EmbeddedStack


async def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        async with EmbeddedStack(Path(home), want_valkey=False, want_seaweed=False) as servers:
            await asyncio.to_thread(upgrade, servers.database_url)
            try:
                await asyncio.to_thread(check, servers.database_url)
            except SchemaDiffers as differences:
                sys.exit(f"db/tables.py and the migrations differ: {differences}")


asyncio.run(main())
