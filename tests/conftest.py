"""One PostgreSQL, Redis and S3 for the whole run; every test starts with an empty database."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import pytest
from redis.asyncio import Redis

from auth.permissions import BUILT_IN_ROLES
from auth.principals import Principal
from db import access, grants, roles, users
from db.database import Database
from db.rows import Project
from db.tables import metadata
from domain.projects import create_project
from embedded.servers import EmbeddedStack
from headai.services import open_services
from headai.settings import Settings
from headai.signing_key import signing_key_pem
from ml.processes import Template
from monitoring.logs import configure
from plans.cache import Plans
from resolvers.context import Context, Request, Services
from schema.execution import respond
from schema.executor import Executor
from storage.objects import ObjectStore
from tests.canaries import WATCH, watched_log
from tests.serving import served, settings_for
from tests.uploading import create_dataset
from workers.worker import Worker

Response = dict[str, Any]
Execute = Callable[..., Awaitable[Response]]
Caller = Callable[..., Awaitable[Principal]]
StartWorker = Callable[[], Awaitable[asyncio.subprocess.Process]]


configure(style="console", level="INFO", stream=watched_log())
Executor.plans = Plans(sightings=1)  # whatever can be planned is, but with HEADAI_EXECUTOR=core
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


OWN_SECRETS = ("database password", "Redis password", "S3 secret key", "signing key")


@pytest.fixture(scope="session", autouse=True)
def nobody_tells_a_secret() -> Iterator[None]:
    """Fails the run when an answer or a log line told one of the secrets of `tests/canaries.py`."""
    yield
    assert not WATCH.seen, WATCH.seen[:5]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, default=8, help="faults while readers of live metrics are checked")
    parser.addoption("--fuzz", type=float, default=0, help="seconds for random operations, each time other ones")
    parser.addoption("--disturbed-runs", type=int, default=2, help="runs whose processes are killed at random rounds")
    parser.addoption("--fuzz-examples", type=int, default=60, help="how many of everything tests/test_fuzzing.py sends")


@pytest.fixture(scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    async with EmbeddedStack(tmp_path_factory.mktemp("servers")) as stack:
        yield stack


@pytest.fixture(scope="session")
async def settings(servers: EmbeddedStack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = await settings_for(servers, tmp_path_factory.mktemp("home"))
    key = signing_key_pem(made).decode().splitlines()[1]
    own = (
        urlsplit(made.database_url).password,
        urlsplit(made.redis_url).password,
        made.s3_secret_key.get_secret_value(),
    )
    for name, secret in zip(OWN_SECRETS, (*own, key), strict=True):
        assert secret
        WATCH.secrets[secret] = name
    return made


@pytest.fixture(scope="session")
async def shared_services(settings: Settings) -> AsyncIterator[Services]:
    async with open_services(settings) as services:
        yield services


@pytest.fixture
async def services(shared_services: Services, settings: Settings) -> Services:
    """What a process of the API holds, on an empty database."""
    kept = {"installation", "roles", "workers", "audit_head"}
    tables = ", ".join(table for table in metadata.tables if table not in kept)
    async with shared_services.db.transaction() as session:
        await session.connection.execute(f"TRUNCATE {tables}, pgqueuer, pgqueuer_log")
        await session.connection.execute("DELETE FROM roles WHERE NOT built_in")
        await session.connection.execute("UPDATE installation SET forgotten_changed = NULL, forgotten_number = NULL")
        await session.connection.execute("UPDATE audit_head SET number = 0, hash = repeat('0', 64)")
    async with Redis.from_url(settings.redis_url) as redis:
        await redis.flushdb()
    return shared_services


@pytest.fixture
def db(services: Services) -> Database:
    return services.db


@pytest.fixture
def store(services: Services) -> ObjectStore:
    return services.store


@pytest.fixture
def caller(db: Database) -> Caller:
    """`await caller("Viewer")`: a signed-in user with a built-in role (None: with no role at all)."""
    made = 0

    async def make(role: str | None = "Administrator", *, username: str | None = None) -> Principal:
        nonlocal made
        made += 1
        name = username or f"user{made}"
        async with db.transaction() as session:
            user = await users.insert_unless_taken(
                session, username=name, email=f"{name}@example.com", display_name=name, password_digest=None
            )
            assert user is not None
            if role is not None:
                known = await roles.by_name(session, role)
                assert known is not None, [built_in.name for built_in in BUILT_IN_ROLES]
                await grants.grant_role(session, user_id=user.id, role_id=known.id, created_by=None)
            opened = await access.open_session(
                session,
                user_id=user.id,
                lifetime=timedelta(days=1),
                ip_address=None,
                user_agent=None,
            )
            principal = await access.principal(session, session_id=opened.id, user_id=user.id)
        assert principal is not None
        return principal

    return make


@pytest.fixture
async def admin(caller: Caller) -> Principal:
    return await caller("Administrator", username="ada")


@pytest.fixture
async def scientist(caller: Caller) -> Principal:
    return await caller("Data Scientist", username="sam")


@pytest.fixture
async def project(db: Database, admin: Principal) -> Project:
    async with db.transaction() as session:
        return await create_project(session, admin, slug="lab", name="Lab", description=None, tags=[])


@pytest.fixture
def context_of(services: Services) -> Callable[[Principal | None], Context]:
    def make(principal: Principal | None) -> Context:
        return Context(services=services, request=Request(request_id="test"), principal=principal)

    return make


@pytest.fixture
def execute(context_of: Callable[[Principal | None], Context]) -> Execute:
    """Run one operation as `principal`, through everything below the transport; the response without its cost."""

    async def run(query: str, *, principal: Principal | None = None, **variables: Any) -> Response:
        response, _ = await respond(query, variables, None, context_of(principal))
        WATCH.look("an answer", repr(response))
        response.pop("extensions", None)
        return response

    return run


@pytest.fixture
def statements(db: Database) -> Callable[[], Any]:
    """`with statements() as seen:` collects the statements that the block sends."""

    @contextmanager
    def recording() -> Iterator[list[str]]:
        seen: list[str] = []
        usual, db.watch = db.watch, seen.append
        try:
            yield seen
        finally:
            db.watch = usual

    return recording


@pytest.fixture
def token_of(services: Services) -> Callable[[Principal], str]:
    """An access token of a caller, as `login` hands it out."""
    return lambda principal: services.tokens.issue(principal.user_id, principal.session_id)[0]


@pytest.fixture
async def server(settings: Settings, services: Services) -> AsyncIterator[str]:
    """A real uvicorn on a free port; yields `http://127.0.0.1:<port>`."""
    async with served(settings) as url:
        yield url


@pytest.fixture(scope="session")
async def template() -> AsyncIterator[Template]:
    """What children are forked from, warm for all tests of this process."""
    template = Template()
    template.start()
    yield template
    await template.close()


@pytest.fixture
def hand(services: Services, template: Template, tmp_path: Path) -> Worker:
    """A worker whose jobs the test does itself, in this process."""
    return Worker(
        db=services.db,
        store=services.store,
        wakeups=services.wakeups,
        name="test",
        scratch=tmp_path,
        run_memory_limit_mb=2048,
        children=template,
    )


@pytest.fixture
async def dataset(execute: Any, scientist: Principal, project: Project) -> str:
    """The ID of an empty dataset in the project."""
    return await create_dataset(execute, scientist, project)


@pytest.fixture
async def start_worker(settings: Settings, services: Services, tmp_path: Path) -> AsyncIterator[StartWorker]:
    """`await start_worker()`: a process of `headai worker`; what still runs in the end is killed."""
    started: list[asyncio.subprocess.Process] = []
    log = tmp_path / "workers.log"

    async def start() -> asyncio.subprocess.Process:
        with log.open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headai",
                "worker",
                env=settings.environment() | {"HEADAI_CHECKPOINT_INTERVAL": "PT0.1S"},
                cwd=Path(__file__).parents[1],
                stderr=said,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if started:
        WATCH.look("a worker's log", log.read_text())
        sys.stderr.write(log.read_text())


@pytest.fixture
async def worker(start_worker: StartWorker) -> AsyncIterator[None]:
    """A worker process that is there for the whole test."""
    process = await start_worker()
    yield
    assert process.returncode is None, "the worker ended by itself"
    process.terminate()
    await process.wait()
