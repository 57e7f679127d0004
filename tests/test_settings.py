"""Settings come from `HEADAI_*` alone, and a bad one is told by its name."""

import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr, ValidationError

from headai.settings import CommonSettings, Settings, SettingsError, StackSettings, settings_table
from headai.signing_key import signing_key_pem

SERVICES: dict[str, Any] = {
    "database_url": "postgresql://user:hunter2@db/headai",
    "redis_url": "redis://:hunter2@redis:6379/0",
    "s3_endpoint_url": "http://store:9000",
    "s3_access_key": "key",
    "s3_secret_key": "hunter2",
}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("HEADAI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADAI_HOME", str(tmp_path))


def test_what_is_missing_is_named_with_its_meaning() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load()
    assert str(refused.value).splitlines() == [
        "HEADAI_DATABASE_URL is not set (Address of PostgreSQL, `postgresql://user:password@host:port/database`.)",
        "HEADAI_REDIS_URL is not set (Address of Redis or Valkey, `redis://:password@host:port/0`.)",
        "HEADAI_S3_ACCESS_KEY is not set (Access key of the object store.)",
        "HEADAI_S3_SECRET_KEY is not set (Secret key of the object store.)",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("HEADAI_PORT", "65536", "less than or equal to 65535"),
        ("HEADAI_PORT", "http", "valid integer"),
        ("HEADAI_DATABASE_URL", "mysql://db/headai", "begins with postgresql:// or postgres://"),
        ("HEADAI_DATABASE_URL", "postgresql://db:port/headai", "is not an address"),
        ("HEADAI_REDIS_URL", "localhost:6379", "begins with redis://"),
        ("HEADAI_S3_ENDPOINT_URL", "store:9000", "begins with http:// or https://"),
        ("HEADAI_S3_BUCKET", "My_Bucket", "match pattern"),
        ("HEADAI_ACCESS_TOKEN_LIFETIME", "PT16M", "less than or equal to 15 minutes"),
        ("HEADAI_LOG_LEVEL", "chatty", "'debug', 'info', 'warning' or 'error'"),
        ("HEADAI_DEMO", "perhaps", "valid boolean"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    for name, good in SERVICES.items():
        monkeypatch.setenv(f"HEADAI_{name.upper()}", good)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        Settings.load()
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{variable} has a value that cannot be used: ")
    assert reason in line


def test_values_are_written_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADAI_CORS_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("HEADAI_ACCESS_TOKEN_LIFETIME", "600")
    monkeypatch.setenv("HEADAI_EVENT_RETENTION", "P7D")
    monkeypatch.setenv("HEADAI_LOG_LEVEL", "INFO")
    monkeypatch.setenv("HEADAI_DEMO", "0")
    monkeypatch.setenv("HEADAI_ADMIN_PASSWORD", "")
    loaded = CommonSettings.load()
    assert loaded.cors_origins == ("https://a.example", "https://b.example")
    assert loaded.access_token_lifetime == timedelta(minutes=10)
    assert loaded.event_retention == timedelta(days=7)
    assert loaded.log_level == "info"
    assert loaded.demo is False
    assert loaded.admin_password is None, "empty is not set"


def test_secrets_do_not_show_and_nothing_changes_later() -> None:
    loaded = Settings.load(**SERVICES, admin_password="hunter2")
    assert "hunter2" not in repr(loaded)
    with pytest.raises(ValidationError, match="frozen"):
        loaded.port = 1  # type: ignore[misc]


def test_a_process_started_with_the_environment_has_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADAI_LEFT_OVER", "1")
    given = Settings.load(
        **SERVICES, demo=False, cors_origins=("https://a.example",), refresh_token_lifetime=timedelta(days=3)
    )
    environment = given.environment()
    assert "HEADAI_LEFT_OVER" not in environment
    for name, value in environment.items():
        if name.startswith("HEADAI_"):
            monkeypatch.setenv(name, value)
    assert Settings.load() == given


def test_a_command_beside_a_running_stack_finds_its_services(tmp_path: Path) -> None:
    running = Settings.load(**SERVICES)
    running.announce_services()
    assert stat.filemode((tmp_path / "services.json").stat().st_mode) == "-rw-------"
    assert Settings.load() == running
    with pytest.raises(SettingsError, match=r"^HEADAI_REDIS_URL is not set"):
        Settings.load(database_url="postgresql://other/headai")
    running.withdraw_services()
    with pytest.raises(SettingsError, match=r"^HEADAI_DATABASE_URL is not set"):
        Settings.load()


def test_half_a_store_is_refused() -> None:
    stack = StackSettings.load(s3_endpoint_url="http://store:9000")
    assert stack.has_store
    with pytest.raises(SettingsError) as refused:
        stack.completed(database_url=SERVICES["database_url"], redis_url=SERVICES["redis_url"])
    assert [line.split()[0] for line in str(refused.value).splitlines()] == [
        "HEADAI_S3_ACCESS_KEY",
        "HEADAI_S3_SECRET_KEY",
    ]


def test_every_setting_is_in_the_handbook() -> None:
    handbook = (Path(__file__).parents[1] / "docs" / "operations.md").read_text("utf-8")
    assert settings_table() in handbook, "`headai settings` prints the table for docs/operations.md"


def test_the_signing_key_is_made_once(tmp_path: Path) -> None:
    settings = CommonSettings.load()
    pem = signing_key_pem(settings)
    assert signing_key_pem(settings) == pem
    assert stat.filemode((tmp_path / "signing_key.pem").stat().st_mode) == "-rw-------"
    assert [path.name for path in tmp_path.iterdir()] == ["signing_key.pem"]


def test_a_given_signing_key_is_text_or_a_file(tmp_path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    assert signing_key_pem(CommonSettings.load(signing_key=SecretStr(pem.decode()))) == pem.strip()
    assert signing_key_pem(CommonSettings.load(signing_key=SecretStr(str(tmp_path / "key.pem")))) == pem


def test_a_signing_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for given, reason in (
        (rsa.decode(), "is not an Ed25519 key"),
        (str(tmp_path / "missing.pem"), "neither a PEM text nor a file that can be read: No such file"),
        ("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", "is not a private key in PEM form"),
    ):
        with pytest.raises(SettingsError, match=f"^HEADAI_SIGNING_KEY.*{reason}"):
            signing_key_pem(CommonSettings.load(signing_key=SecretStr(given)))
