"""A headless Chromium in front of the explorer; every page it opened must have kept to the policy."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Browser, Page, async_playwright
from starlette.applications import Starlette

from tests.pages.scripted import ScriptedApi

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ROOT = Path(__file__).parents[2]
_missing: list[pytest.Item] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a Chromium the page tests are left out, except in CI, where they fail and say what to install."""
    if Path(CHROMIUM).exists() or os.environ.get("CI"):
        return
    _missing.extend(item for item in items if item.get_closest_marker("page"))
    items[:] = [item for item in items if item not in _missing]
    config.hook.pytest_deselected(items=_missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing:
        terminalreporter.write_line(
            f"{len(_missing)} page tests were left out: there is no Chromium (apt-get install chromium).", yellow=True
        )


@pytest.fixture(scope="session")
async def built_pages() -> None:
    """The explorer as its sources are now; nothing to do after `make explorer`."""
    command = [sys.executable, str(ROOT / "explorer" / "build.py")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser, built_pages: None) -> AsyncIterator[Page]:
    """A fresh page. When the test is over, it must not have broken the policy, asked another host or met an error."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(20_000)
    troubles: list[str] = []
    hosts: set[str] = set()
    await page.expose_function("reportViolation", lambda text: troubles.append(text))
    await page.add_init_script(
        """document.addEventListener("securitypolicyviolation", (event) =>
             window.reportViolation(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));"""
    )
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on("console", lambda m: troubles.append(f"console: {m.text}") if m.type in {"error", "warning"} else None)
    page.on("request", lambda request: hosts.add(request.url.split("/")[2] if "://" in request.url else ""))
    page.on("websocket", lambda opened: hosts.add(opened.url.split("/")[2]))
    yield page
    own = page.url.split("/")[2]
    await context.close()
    assert troubles == []
    assert hosts - {""} == {own}


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """The application on a free port of this machine; its address."""
    with socket.socket() as listener:
        _bind(listener, range(20_000, 55_000))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=1)
        )
        running = asyncio.create_task(server.serve([listener]))
        while not server.started:
            assert not running.done(), running
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await running


def _bind(listener: socket.socket, ports: Sequence[int]) -> None:
    offset = os.getpid() % len(ports)
    for port in (*ports[offset:], *ports[:offset]):
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            continue
        return
    raise AssertionError("no free port")


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedApi]:
    """An API with the contract's schema and answers that a test writes down; `scripted.url` is its address."""
    api = ScriptedApi()
    async with serving(api.app) as url:
        api.url = url
        yield api
        api.stop()
