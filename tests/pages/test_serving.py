"""What the handlers of the explorer answer: headers, caching, packing, and nothing outside their folder."""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from headai import explorer

PAGE = '<meta property="csp-nonce" nonce="NONCE" /><script src="/explorer/assets/index-abc.js"></script>'
SCRIPT = b"console.log('here');" * 100


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assets = tmp_path / "dist" / "assets"
    assets.mkdir(parents=True)
    (tmp_path / "dist" / "index.html").write_text(PAGE)
    (tmp_path / "secret.js").write_text("no")
    (assets / "index-abc.js").write_bytes(SCRIPT)
    (assets / "index-abc.js.gz").write_bytes(gzip.compress(SCRIPT))
    (assets / "index-abc.css").write_text("body {}")
    (assets / "icons-abc.ttf").write_bytes(b"\0\1\0\0")
    monkeypatch.setattr(explorer, "PLACES", (tmp_path / "pages", tmp_path / "dist"))
    return tmp_path


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=[Route("/graphql", explorer.explorer_page), explorer.explorer_assets])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://headai.example:8000") as client:
        yield client


async def test_each_page_has_its_own_nonce_in_policy_and_text(pages, client):
    first, second = await client.get("/graphql"), await client.get("/graphql")

    nonces = []
    for response in (first, second):
        policy = response.headers["content-security-policy"]
        found = re.search(r"'nonce-([A-Za-z0-9_-]{24})'", policy)
        assert found is not None
        nonces.append(found[1])
        assert response.text == PAGE.replace("NONCE", found[1])
        assert policy == (
            "default-src 'none'; script-src 'self'; worker-src 'self'; "
            "connect-src 'self' ws://headai.example:8000 wss://headai.example:8000; "
            f"img-src 'self' data:; font-src 'self'; style-src 'self' 'nonce-{found[1]}'; "
            "style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    assert nonces[0] != nonces[1]


async def test_the_page_is_not_stored_and_says_how_it_may_be_used(pages, client):
    response = await client.get("/graphql")

    assert response.status_code == 200
    assert (
        dict(response.headers).items()
        >= {
            "cache-control": "no-store",
            "content-type": "text/html; charset=utf-8",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "referrer-policy": "no-referrer",
            "vary": "Accept",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
        }.items()
    )


@pytest.mark.parametrize("host", ["evil.example; script-src *", "a b", "", "x,y", "<b>"])
async def test_a_strange_host_does_not_get_into_the_policy(pages, client, host):
    response = await client.get("/graphql", headers={"host": host})

    assert "; connect-src 'self'; " in response.headers["content-security-policy"]


@pytest.mark.parametrize("host", ["headai.example", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
async def test_sockets_to_the_same_host_are_let_through(pages, client, host):
    response = await client.get("/graphql", headers={"host": host})

    assert f"; connect-src 'self' ws://{host} wss://{host}; " in response.headers["content-security-policy"]


async def test_pages_that_are_not_built_are_explained(client, monkeypatch, tmp_path):
    monkeypatch.setattr(explorer, "PLACES", (tmp_path / "pages", tmp_path / "dist"))

    response = await client.get("/graphql")

    assert response.status_code == 503
    assert "<code>make explorer</code>" in response.text
    assert "NONCE" not in response.text


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("index-abc.js", "text/javascript; charset=utf-8"),
        ("index-abc.css", "text/css; charset=utf-8"),
        ("icons-abc.ttf", "font/ttf"),
    ],
)
async def test_an_asset_is_cached_for_good(pages, client, name, content_type):
    response = await client.get(f"/explorer/assets/{name}", headers={"accept-encoding": "identity"})

    assert response.status_code == 200
    assert response.content == (pages / "dist" / "assets" / name).read_bytes()
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-type"] == content_type
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize(
    ("accept_encoding", "packed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.8", True),
        ("deflate, GZIP", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br", False),
        ("x-gzipped", False),
    ],
)
async def test_an_asset_is_sent_packed_to_those_who_take_it(pages, client, accept_encoding, packed):
    response = await client.get("/explorer/assets/index-abc.js", headers={"accept-encoding": accept_encoding})

    assert response.content == SCRIPT
    assert response.headers.get("content-encoding") == ("gzip" if packed else None)
    assert int(response.headers["content-length"]) == (
        (pages / "dist/assets/index-abc.js.gz").stat().st_size if packed else len(SCRIPT)
    )


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "..%2f..%2fsecret.js",
        "../index.html",
        "%2e%2e%2findex.html",
        "index-abc.js.gz",
        ".inputs",
        "a%00.js",
    ],
)
async def test_nothing_else_is_served(pages, client, path):
    response = await client.get(f"/explorer/assets/{path}")

    assert response.status_code == 404
    assert "cache-control" not in response.headers or response.headers["cache-control"] == "no-store"
