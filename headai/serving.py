"""The API as a process: uvicorn over a socket of our own, which lets its clients go on SIGTERM."""

import errno
import gc
import signal
import socket
import sys

import uvicorn

from headai.leaving import FINISH_SECONDS, Leaving
from headai.requests import MAX_FRAME_BYTES
from headai.settings import CommonSettings, Settings, SettingsError


def serve(settings: Settings) -> None:
    """Serve until SIGTERM, which lets clients go over `drain_time`, or SIGINT, which does so at once.

    What runs then gets ten seconds to end. A second signal ends the patience of the first.

    Raises `SettingsError` when the address cannot be listened on.
    """
    from headai.app import create_app
    from monitoring.logs import configure

    configure(style=settings.log_format, level=settings.log_level.upper())
    listener = listen(settings)
    leaving = Leaving()
    config = uvicorn.Config(
        create_app(settings, leaving),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        # Deflate costs three to four times the memory of a socket.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=int(FINISH_SECONDS),
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
    )
    server = _Server(config, leaving, settings.drain_time.total_seconds())
    server.run(sockets=[listener])
    if not server.started:
        sys.exit("The API did not start; the reason is in the lines above.")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, leaving: Leaving, drain_seconds: float) -> None:
        super().__init__(config)
        self._leaving = leaving
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, once readiness and connections have gone: until then new requests are still taken."""
        at_once = signal.SIGINT in self._captured_signals
        await self._leaving.end_connections(
            0 if at_once else self._drain_seconds, hurry=lambda: len(self._captured_signals) > 1
        )
        await super().shutdown(sockets)

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
