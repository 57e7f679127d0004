"""The explorer: GraphiQL in the browser, served by us under a policy that lets nothing else in.

The pages are built by `explorer/build.py`: a checkout has them in `explorer/dist`, a wheel in `headai/pages`.
"""

import re
import secrets
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

PLACES = (Path(__file__).parent / "pages", Path(__file__).parents[1] / "explorer" / "dist")

_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:]+\](:\d+)?")
_ASSET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\.(js|css|ttf)")
_TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "ttf": "font/ttf"}
_NONCE = 'nonce="NONCE"'
_COMMON_HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_NOT_BUILT = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>Head AI</title>
    <style nonce="NONCE">
      body { font: 16px/1.6 system-ui, sans-serif; margin: 12vh auto; max-width: 34rem; padding: 0 1rem }
      code { background: rgb(127 127 127 / .15); border-radius: 4px; padding: .15em .4em }
    </style>
  </head>
  <body>
    <h1>The API runs; its explorer is not built yet</h1>
    <p>Run <code>make explorer</code> in the folder of Head AI, then load this page again.</p>
    <p>The API itself is ready: POST operations to <code>/graphql</code>.</p>
  </body>
</html>
"""


async def explorer_page(request: Request) -> Response:
    """The page a browser gets from GET /graphql: GraphiQL, or how to build it when that was not done.

    Every response has its own nonce, so it is never stored. 503 while the pages are not built.
    """
    nonce = secrets.token_urlsafe(18)
    pages = _pages()
    html = _NOT_BUILT if pages is None else (pages / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(
        html.replace(_NONCE, f'nonce="{nonce}"'),
        status_code=503 if pages is None else 200,
        headers=_COMMON_HEADERS
        | {
            "Cache-Control": "no-store",
            "Content-Security-Policy": _content_security_policy(nonce, request.headers.get("host", "")),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept",
            "X-Frame-Options": "DENY",
        },
    )


async def explorer_asset(request: Request) -> Response:
    """A script, style sheet or font of the page. Its name holds a hash of its content: cached for good."""
    name = request.path_params["path"]
    pages = _pages()
    known = _ASSET.fullmatch(name)
    if pages is None or known is None or not (pages / "assets" / name).is_file():
        return PlainTextResponse("There is no such file.", status_code=404, headers={"Cache-Control": "no-store"})
    headers = _COMMON_HEADERS | {
        "Cache-Control": "public, max-age=31536000, immutable",
        "Content-Security-Policy": "default-src 'none'; script-src 'self'",
        "Vary": "Accept-Encoding",
    }
    path = pages / "assets" / name
    packed = path.with_name(f"{name}.gz")
    if packed.is_file() and _takes_gzip(request.headers.get("accept-encoding", "")):
        path, headers = packed, headers | {"Content-Encoding": "gzip"}
    return FileResponse(path, media_type=_TYPES[known[1]], headers=headers)


explorer_assets = Route("/explorer/assets/{path:path}", explorer_asset, methods=["GET"], include_in_schema=False)


def _pages() -> Path | None:
    return next((place for place in PLACES if (place / "index.html").is_file()), None)


def _takes_gzip(accept_encoding: str) -> bool:
    """RFC 9110, section 12.5.3: named with a weight other than zero."""
    for entry in accept_encoding.split(","):
        coding, _, weight = entry.partition(";")
        if coding.strip().lower() == "gzip":
            return re.fullmatch(r"q=0(\.0{0,3})?", weight.strip().lower()) is None
    return False


def _content_security_policy(nonce: str, host: str) -> str:
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "worker-src 'self'",
            f"connect-src 'self'{sockets}",
            "img-src 'self' data:",
            "font-src 'self'",
            f"style-src 'self' 'nonce-{nonce}'",
            "style-src-attr 'unsafe-inline'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
