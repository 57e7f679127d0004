"""The API as a process: uvicorn over a socket of our own, drained on SIGTERM."""

import errno
import gc
import socket
import sys

import uvicorn

from headai.requests import MAX_FRAME_BYTES
from headai.settings import CommonSettings, Settings, SettingsError

_DRAIN_SECONDS = 10


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight get ten seconds to end.

    Raises `SettingsError` when the address cannot be listened on.
    """
    from headai.app import create_app
    from monitoring.logs import configure

    configure(style=settings.log_format, level=settings.log_level.upper())
    listener = listen(settings)
    config = uvicorn.Config(
        create_app(settings),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        # Deflate costs three to four times the memory of a socket.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
    )
    server = _Server(config)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit("The API did not start; the reason is in the lines above.")


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then the garbage collector is told that everything made so far stays for good.

        Looking through it again and again took two thirds of the time of an answer with 1,600 objects.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(25_000, 10, 10)


def listen(settings: CommonSettings) -> socket.socket:
    """The listening socket of the API.

    Raises `SettingsError` naming HEADAI_PORT or HEADAI_HOST.
    """
    address = f"{settings.host}:{settings.port}"
    try:
        family, *_ = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except socket.gaierror as error:
        raise SettingsError(f"HEADAI_HOST is {settings.host}, which is no address of a machine: {error}") from None
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                reason = f"another program listens on {address}. End it, or set HEADAI_PORT to a free port"
            case errno.EACCES:
                reason = f"you may not listen on {address}. Set HEADAI_PORT to a port above 1023"
            case errno.EADDRNOTAVAIL:
                reason = f"{settings.host} is not an address of this machine. Set HEADAI_HOST to one that is"
            case _:
                reason = f"it cannot be listened on: {error.strerror}. Set HEADAI_HOST and HEADAI_PORT"
        raise SettingsError(f"The API was to listen on {address}, but {reason}.") from None
