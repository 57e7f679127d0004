"""The API stays up while a part it needs is away, says so, and goes on when the part is back."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from embedded.servers import EmbeddedStack
from headai.administration import ensure_administrator
from tests.serving import kill, served, settings_for

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
LOGIN = 'mutation { login(input: {username: "admin", password: "%s"}) { tokens { accessToken } errors { code } } }'
HEALTH = "{ health { status components { name status } } }"
CREATE = 'mutation { createProject(input: {slug: "%s", name: "Lab"}) { project { slug } errors { code message } } }'
UPLOAD = """
mutation ($dataset: ID!) {
  startUpload(input: {datasetId: $dataset, fileName: "a.csv", sizeBytes: 10, format: CSV}) { upload { id } }
}
"""


class Client:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.headers: dict[str, str] = {}

    async def __call__(self, query: str, **variables: object) -> dict:
        answer = await self.client.post("/graphql", json={"query": query, "variables": variables}, headers=self.headers)
        assert answer.status_code < 500, answer.text
        return answer.json()

    async def status_of(self, name: str) -> tuple[str, str]:
        health = (await self(HEALTH))["data"]["health"]
        return health["status"], {part["name"]: part["status"] for part in health["components"]}[name]

    async def until(self, name: str, wanted: str) -> str:
        """Ask until the part has the wanted status; the status of the whole then."""
        async with asyncio.timeout(30):
            while True:
                whole, part = await self.status_of(name)
                if part == wanted:
                    return whole
                await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
async def own(tmp_path_factory) -> AsyncIterator[tuple[EmbeddedStack, Client]]:
    """Servers that may be killed, and a signed-in client of an API over them."""
    async with EmbeddedStack(tmp_path_factory.mktemp("own")) as stack:
        settings = await settings_for(stack, tmp_path_factory.mktemp("home"))
        await ensure_administrator(settings, PASSWORD)
        async with served(settings) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
            client = Client(http)
            signed_in = await client(LOGIN % PASSWORD)
            client.headers["authorization"] = f"Bearer {signed_in['data']['login']['tokens']['accessToken']}"
            yield stack, client


async def test_without_redis_everything_goes_on_and_health_says_so(own):
    stack, client = own
    redis = next(server for server in stack.servers if server.title == "Valkey")

    await kill(redis)
    whole = await client.until("redis", "DOWN")
    made = await client(CREATE % "without-redis")
    await redis.start()

    assert whole == "DEGRADED"
    assert made["data"]["createProject"] == {"project": {"slug": "without-redis"}, "errors": []}
    await client.until("redis", "OK")


async def test_without_the_store_uploads_are_unavailable_and_nothing_is_half_written(own):
    stack, client = own
    store = next(server for server in stack.servers if server.title == "SeaweedFS")
    await client(CREATE % "without-store")
    project = (await client('{ project(slug: "without-store") { id } }'))["data"]["project"]["id"]
    dataset = (
        await client(
            'mutation ($project: ID!) { createDataset(input: {projectId: $project, name: "d"}) { dataset { id } } }',
            project=project,
        )
    )["data"]["createDataset"]["dataset"]["id"]

    await kill(store)
    whole = await client.until("storage", "DOWN")
    refused = await client(UPLOAD, dataset=dataset)
    versions = await client(
        "query ($id: ID!) { dataset(id: $id) { versions { totalCount } uploads { totalCount } } }", id=dataset
    )
    await store.start()
    await client.until("storage", "OK")
    taken = await client(UPLOAD, dataset=dataset)

    assert whole == "DEGRADED"
    assert refused["data"] == {"startUpload": None}
    assert refused["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
    assert versions["data"]["dataset"] == {"versions": {"totalCount": 0}, "uploads": {"totalCount": 0}}
    assert taken["data"]["startUpload"]["upload"]["id"].startswith("upload_")


async def test_without_the_database_the_api_answers_and_goes_on_when_it_is_back(own):
    stack, client = own
    database = next(server for server in stack.servers if server.title == "PostgreSQL")

    await kill(database)
    away = await client.client.post("/graphql", json={"query": "{ projects { totalCount } }"}, headers=client.headers)
    async with asyncio.timeout(10):
        while (ready := await client.client.get("/readyz")).status_code == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    alive = await client.client.get("/healthz")
    await database.start()
    await client.until("database", "OK")
    back = await client(CREATE % "after-postgres")

    assert away.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert back["data"]["createProject"] == {"project": {"slug": "after-postgres"}, "errors": []}
