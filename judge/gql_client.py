"""The client gql at work: a query and mutations over HTTP, a subscription that is cut and goes on over a WebSocket.

Runs in the environment of `judge/requirements.lock`, with URL, TOKEN and PROJECT in its environment.
"""

import asyncio
import os
from contextlib import suppress
from urllib.parse import urlsplit

from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport

URL, TOKEN, PROJECT = os.environ["URL"], os.environ["TOKEN"], os.environ["PROJECT"]
AUTHORIZATION = f"Bearer {TOKEN}"
SECONDS = 60

QUERY = "query { viewer { user { username } } }"
MUTATION = """
mutation ($input: CreateDatasetInput!) { createDataset(input: $input) { dataset { id name } errors { message } } }
"""
SUBSCRIPTION = """
subscription ($filter: EventFilter!, $after: String) {
  events(filter: $filter, after: $after) {
    __typename
    ... on Event { cursor subjectId }
    ... on StreamCaughtUp { cursor }
  }
}
"""


class Wire:
    """Between the client and the server; `cut` ends every connection at once."""

    def __init__(self) -> None:
        self._ends: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Wire":
        self._listener = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = urlsplit(URL)
        far_reader, far_writer = await asyncio.open_connection(server.hostname, server.port or 80)
        ends = {writer, far_writer}
        self._ends |= ends
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._ends -= ends

    @staticmethod
    async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.transport.abort()


class Watcher:
    """Subscribes, and again after the last cursor whenever the connection is lost."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._cursor: str | None = None
        self._changed = asyncio.Condition()
        self.seen: list[str] = []
        self.caught_up = 0

    async def run(self) -> None:
        for _ in range(20):
            with suppress(TransportError, OSError):
                await self._watch()
            await asyncio.sleep(0.1)
        raise RuntimeError("the subscription does not stay")

    async def _watch(self) -> None:
        transport = WebsocketsTransport(f"ws://{self._address}/graphql", init_payload={"authorization": AUTHORIZATION})
        async with Client(transport=transport) as session:
            variables = {
                "filter": {"projectIds": [PROJECT], "types": ["DATASET_CREATED"]},
                "after": self._cursor,
            }
            async for item in session.subscribe(GraphQLRequest(SUBSCRIPTION, variable_values=variables)):
                event = item["events"]
                self._cursor = event.get("cursor", self._cursor)
                if event["__typename"] == "Event":
                    self.seen.append(event["subjectId"])
                self.caught_up += event["__typename"] == "StreamCaughtUp"
                async with self._changed:
                    self._changed.notify_all()

    async def until(self, caught_up: int, seen: int) -> None:
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.caught_up >= caught_up and len(self.seen) >= seen)


async def main() -> None:
    headers = {"authorization": AUTHORIZATION}
    made: list[str] = []

    async def create(session: object) -> None:
        given = {"input": {"projectId": PROJECT, "name": f"gql {len(made)}"}}
        answer = (await session.execute(GraphQLRequest(MUTATION, variable_values=given)))["createDataset"]
        assert answer["errors"] == [], answer
        made.append(answer["dataset"]["id"])

    async with Wire() as wire:
        transport = HTTPXAsyncTransport(f"http://{wire.address}/graphql", headers=headers)
        beside = HTTPXAsyncTransport(f"{URL}/graphql", headers=headers)
        async with (
            Client(transport=transport) as session,
            Client(transport=beside) as other,
            asyncio.TaskGroup() as group,
        ):
            answer = await session.execute(GraphQLRequest(QUERY))
            assert isinstance(answer["viewer"]["user"]["username"], str), answer
            watcher = Watcher(wire.address)
            watching = group.create_task(watcher.run())
            await watcher.until(caught_up=1, seen=0)
            for _ in range(3):
                await create(session)
            await watcher.until(caught_up=1, seen=3)

            wire.cut()
            for _ in range(3):
                await create(other)
            await watcher.until(caught_up=2, seen=6)
            await create(other)
            await watcher.until(caught_up=2, seen=7)
            watching.cancel()
    assert watcher.seen == made, f"each event once and in order: {watcher.seen} of {made}"
    print(f"gql: query, {len(made)} mutations, a subscription cut and resumed without gap or repeat")


asyncio.run(main())
