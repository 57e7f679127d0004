"""What differs between one deployment and another: every `HEADAI_*` variable, read once at start.

`Settings` is what the API and a worker need: each service by its address. `StackSettings` is what `headai up`
needs: it starts a server of its own for every service without an address and hands `Settings` on.
Nothing else in the project reads the environment.
"""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

if TYPE_CHECKING:
    from storage.objects import StoreSettings

ENV_PREFIX = "HEADAI_"
SERVICES = ("database_url", "redis_url", "s3_endpoint_url", "s3_access_key", "s3_secret_key")
_SERVICES_FILE = "services.json"


class SettingsError(Exception):
    """A setting is missing or has a value that cannot be used; the message names it."""


def _url(value: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not an address: {error}") from None
    if parts.scheme not in schemes or not (host or parts.path or parts.query):
        raise ValueError(f"is not an address that begins with {' or '.join(f'{s}://' for s in schemes)}")
    return value


class CommonSettings(BaseSettings):
    """What every command of Head AI understands, whether it finds its services or starts them."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Path = Field(
        default=Path(".headai"),
        description="Folder for what Head AI keeps on this machine: the data of the embedded servers, the "
        "signing key, passwords and log files.",
    )
    host: str = Field(default="127.0.0.1", description="Address the API listens on; `0.0.0.0` lets other machines in.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port the API listens on.")
    admin_password: SecretStr | None = Field(
        default=None,
        description="Password of the first administrator, `admin`; else one is made up and printed once.",
    )
    demo: bool = Field(default=True, description="Whether `headai up` runs the demo on an empty installation.")
    signing_key: SecretStr | None = Field(
        default=None,
        description="Ed25519 private key that signs access tokens: PEM text, or the path of a PEM file. "
        "Without it one is generated once and kept in `HEADAI_HOME`. Give all API processes the same key.",
    )
    access_token_lifetime: timedelta = Field(
        default=timedelta(minutes=15),
        ge=timedelta(minutes=1),
        le=timedelta(minutes=15),
        description="Life of an access token, 15 minutes at most; seconds or an ISO 8601 duration.",
    )
    refresh_token_lifetime: timedelta = Field(
        default=timedelta(days=30),
        ge=timedelta(hours=1),
        description="How long a session lasts unused; seconds or an ISO 8601 duration.",
    )
    login_attempts_per_address: int = Field(
        default=1000,
        ge=1,
        description="Wrong passwords that may come from one address before it is locked out for 15 minutes. An account "
        "is locked after 10, wherever they come from.",
    )
    login_delay: timedelta = Field(
        default=timedelta(milliseconds=100),
        ge=timedelta(0),
        le=timedelta(seconds=2),
        description="How long a sign-in waits after the third wrong password for its account (after 30 from its "
        "address); twice as long after each further one (each further 30), 2 seconds at most. 0 lets nobody wait.",
    )
    event_retention: timedelta = Field(
        default=timedelta(days=30),
        ge=timedelta(days=1),
        description="How long events stay in the log, and so how old a cursor may be that still resumes; "
        "seconds or an ISO 8601 duration.",
    )
    metric_retention: timedelta | None = Field(
        default=None,
        ge=timedelta(hours=1),
        description="How long the points of metrics that belong to no run stay; without it they stay. Seconds or an "
        "ISO 8601 duration.",
    )
    introspection: Literal["signed-in", "system-read", "public", "off"] = Field(
        default="signed-in",
        description="Who may read the schema through introspection: callers who are `signed-in`, holders of the "
        "permission SYSTEM_READ (`system-read`), everybody (`public`), or nobody (`off`).",
    )
    executor: Literal["core", "plans"] = Field(
        default="plans",
        description="What runs operations: `plans` runs whole levels at once where it can; `core` is graphql-core, "
        "field by field, with the same answers.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of web pages on other hosts that may call the API, separated by commas.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Addresses or networks of the proxies in front of the API, separated by commas; only they may "
        "say through X-Forwarded headers who the caller is.",
    )
    max_cost: int = Field(
        default=10_000, ge=100, le=2**31 - 1, description="Cost points that one operation may take at most."
    )
    rate_limit: int = Field(
        default=10_000_000,
        ge=100,
        le=2**31 - 1,
        description="Cost points that a signed-in caller may take at once: the size of the bucket.",
    )
    rate_limit_per_second: float = Field(
        default=1_000_000,
        gt=0,
        le=2**31 - 1,
        description="Cost points that flow back into a caller's bucket each second.",
    )
    anonymous_rate_limit: int = Field(
        default=1_000_000,
        ge=100,
        le=2**31 - 1,
        description="As `HEADAI_RATE_LIMIT`, for an address that is not signed in.",
    )
    anonymous_rate_limit_per_second: float = Field(
        default=100_000,
        gt=0,
        le=2**31 - 1,
        description="As `HEADAI_RATE_LIMIT_PER_SECOND`, for an address that is not signed in.",
    )
    max_sockets_per_caller: int = Field(
        default=2000,
        ge=1,
        description="WebSockets that an API process keeps open for one caller, or one address without credentials.",
    )
    max_operations_per_socket: int = Field(
        default=50, ge=1, le=10_000, description="Operations that may run on one WebSocket at the same time."
    )
    drain_time: timedelta = Field(
        default=timedelta(seconds=10),
        ge=timedelta(0),
        le=timedelta(minutes=10),
        description="How long an API process that gets SIGTERM still answers, while `/readyz` says 503 and WebSockets "
        "and event streams end one after the other; seconds or an ISO 8601 duration. `headai up` takes none of it.",
    )
    slow_client_timeout: timedelta = Field(
        default=timedelta(seconds=15),
        gt=timedelta(0),
        description="How long an item of a subscription waits for a client that does not read, before the subscription "
        "ends with SLOW_CONSUMER and the cursor to go on from; seconds or an ISO 8601 duration.",
    )
    database_pool_size: int = Field(
        default=10, ge=2, le=1000, description="Connections to PostgreSQL that one process keeps at most."
    )
    worker_concurrency: int = Field(default=2, ge=1, le=256, description="Jobs that one worker runs at the same time.")
    run_memory_limit_mb: int = Field(
        default=4096, ge=256, description="Memory in MiB that the child process of one training run may use."
    )
    checkpoint_interval: timedelta = Field(
        default=timedelta(seconds=5),
        gt=timedelta(0),
        description="How often a training run keeps where it is, and so about what a lost worker costs it; seconds or "
        "an ISO 8601 duration. Checkpoints take at most two percent of the time, so those of large models are rarer.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important message that is still logged."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Log lines for people (`console`) or for machines (`json`)."
    )
    s3_region: str = Field(default="us-east-1", description="Region of the object store.")
    s3_bucket: str = Field(
        default="headai",
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="Bucket that holds uploads, converted data and models; made when it does not exist.",
    )
    s3_public_url: str | None = Field(
        default=None,
        description="Address of the object store as clients see it, when it differs from "
        "`HEADAI_S3_ENDPOINT_URL`; signed upload and download links begin with it.",
    )

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("log_level", "log_format", "introspection", "executor", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator(
        "access_token_lifetime",
        "refresh_token_lifetime",
        "login_delay",
        "event_retention",
        "metric_retention",
        "drain_time",
        "slow_client_timeout",
        "checkpoint_interval",
        mode="before",
    )
    @classmethod
    def _bare_number_is_seconds(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("database_url", check_fields=False)
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        return value and _url(value, ("postgresql", "postgres"))

    @field_validator("redis_url", check_fields=False)
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        return value and _url(value, ("redis", "rediss", "unix"))

    @field_validator("s3_endpoint_url", "s3_public_url", check_fields=False)
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return value and _url(value, ("http", "https"))

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the environment; keyword arguments win over it.

        Raises `SettingsError` with a line for each variable that is missing or unusable.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError("\n".join(_explain(cls, dict(problem)) for problem in error.errors())) from None


class Settings(CommonSettings):
    """What the API, a worker and the migrations need to run: where each service is."""

    database_url: str = Field(
        repr=False,
        description="Address of PostgreSQL, `postgresql://user:password@host:port/database`.",
    )
    redis_url: str = Field(repr=False, description="Address of Redis or Valkey, `redis://:password@host:port/0`.")
    s3_endpoint_url: str | None = Field(
        default=None, description="Address of the S3 object store; without it, that of AWS."
    )
    s3_access_key: SecretStr = Field(description="Access key of the object store.")
    s3_secret_key: SecretStr = Field(description="Secret key of the object store.")

    @classmethod
    def load(cls, **given: Any) -> Self:
        """As `CommonSettings.load`; services nobody names are those of the `headai up` that runs on this home."""
        known = StackSettings.load(**given)
        if any(getattr(known, name) is not None for name in SERVICES):
            return super().load(**given)
        return super().load(**{**_running_services(known.home), **given})

    def environment(self) -> dict[str, str]:
        """The environment of a process that is to have these settings, secrets in clear."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        ours = {variable(name): _written(value) for name, value in self if value is not None}
        return others | ours

    def store(self) -> "StoreSettings":
        """What `storage` needs to know of them."""
        from storage.objects import StoreSettings

        return StoreSettings(
            endpoint_url=self.s3_endpoint_url,
            public_url=self.s3_public_url,
            region=self.s3_region,
            access_key=self.s3_access_key.get_secret_value(),
            secret_key=self.s3_secret_key.get_secret_value(),
            bucket=self.s3_bucket,
        )

    def announce_services(self) -> None:
        """Let other commands on this home find the services; the file is readable by its owner alone."""
        path = self.home / _SERVICES_FILE
        services = {name: value for name in SERVICES if (value := getattr(self, name)) is not None}
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({name: _written(value) for name, value in services.items()}, file)

    def withdraw_services(self) -> None:
        (self.home / _SERVICES_FILE).unlink(missing_ok=True)


class StackSettings(CommonSettings):
    """What `headai up` needs: a service without an address gets an embedded server."""

    database_url: str | None = Field(default=None, repr=False)
    redis_url: str | None = Field(default=None, repr=False)
    s3_endpoint_url: str | None = None
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None

    @property
    def has_store(self) -> bool:
        """Whether an object store is given; an access key without an address means AWS."""
        return self.s3_endpoint_url is not None or self.s3_access_key is not None

    def completed(self, **services: str) -> Settings:
        """These settings with the addresses of the servers that were started.

        Raises `SettingsError` when part of a service is still missing, such as the secret key of a given store.
        """
        return Settings.load(**{**self.model_dump(exclude_none=True), **services})


def _running_services(home: Path) -> dict[str, str]:
    try:
        services: dict[str, str] = json.loads((home / _SERVICES_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return services


def variable(field: str) -> str:
    """The environment variable of a setting: `HEADAI_PORT` for `port`."""
    return f"{ENV_PREFIX}{field.upper()}"


def _explain(cls: type[BaseSettings], problem: dict[str, Any]) -> str:
    field = str(problem["loc"][0])
    name = variable(field)
    described = cls.model_fields.get(field) or Settings.model_fields.get(field)
    meaning = f" ({described.description})" if described and described.description else ""
    if problem["type"] == "missing":
        return f"{name} is not set{meaning}"
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{name} has a value that cannot be used: {reason}{meaning}"


def settings_table() -> str:
    """Every setting as a Markdown table, for the documentation."""
    fields = {**CommonSettings.model_fields, **{name: Settings.model_fields[name] for name in SERVICES}}
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        default = "" if field.is_required() or field.default is None else _written(field.default)
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{variable(name)}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def _written(value: object) -> str:
    """A value as one writes it into the environment."""
    match value:
        case SecretStr():
            return value.get_secret_value()
        case bool():
            return str(int(value))
        case tuple():
            return ",".join(map(str, value))
        case timedelta():
            return str(TypeAdapter(timedelta).dump_python(value, mode="json"))
        case _:
            return str(value)
