"""The private key that signs access tokens: given by a setting, or made once and kept in HEADAI_HOME."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from headai.settings import CommonSettings, SettingsError


def signing_key_pem(settings: CommonSettings) -> bytes:
    """An Ed25519 private key, PKCS #8 in PEM form; every process on one HEADAI_HOME gets the same.

    Raises `SettingsError` when there is none that can be used and none can be made.
    """
    if settings.signing_key is None:
        return _kept(settings.home / "signing_key.pem")
    given = settings.signing_key.get_secret_value().strip()
    if given.startswith("-----BEGIN"):
        return _checked(given.encode(), "HEADAI_SIGNING_KEY")
    try:
        return _checked(Path(given).expanduser().read_bytes(), f"HEADAI_SIGNING_KEY ({given})")
    except OSError as error:
        raise SettingsError(
            f"HEADAI_SIGNING_KEY is neither a PEM text nor a file that can be read: {error.strerror}"
        ) from None


def _kept(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        return _checked(path.read_bytes(), str(path))
    except OSError as error:
        raise SettingsError(
            f"The signing key cannot be kept in HEADAI_HOME ({path.parent}): {error.strerror}. "
            "Set HEADAI_HOME to a folder you may write to, or HEADAI_SIGNING_KEY to a key."
        ) from None


def _make(path: Path) -> None:
    """Linked into place when whole: of processes that start together, one makes the key of all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def _checked(pem: bytes, name: str) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{name} is not a private key in PEM form without a password: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{name} is not an Ed25519 key; `openssl genpkey -algorithm ed25519` makes one")
    return pem
