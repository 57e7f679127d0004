"""Administrators and passwords, straight in the database: for set-up, and for those who are locked out."""

import secrets

from auth.passwords import weakness
from db.database import Database
from domain import users
from domain.refusals import Refused
from headai.settings import Settings, SettingsError

FIRST = "admin"


async def ensure_administrator(settings: Settings, password: str | None) -> str | None:
    """On an empty installation, make `admin`; the password that signs in, or None when there are accounts already.

    Raises `SettingsError` when the given password is too weak.
    """
    weak = weakness(password, username=FIRST) if password else None
    if weak is not None:
        raise SettingsError(f"HEADAI_ADMIN_PASSWORD cannot be used: {weak.reason}")
    chosen = password or secrets.token_urlsafe(15)
    async with Database(settings.database_url) as db, db.transaction() as session:
        made = await users.ensure_first_administrator(session, username=FIRST, password=chosen)
    return chosen if made is not None else None


async def create_administrator(settings: Settings, username: str, password: str) -> None:
    """Raises `SettingsError` when the name is taken or the password too weak."""
    try:
        async with Database(settings.database_url) as db, db.transaction() as session:
            await users.create_administrator(session, username=username, password=password)
    except Refused as refused:
        raise SettingsError(str(refused)) from refused


async def set_password(settings: Settings, username: str, password: str) -> None:
    """Raises `SettingsError` when there is no such user or the password is too weak."""
    try:
        async with Database(settings.database_url) as db, db.transaction() as session:
            await users.set_password(session, username=username, password=password)
    except Refused as refused:
        raise SettingsError(str(refused)) from refused
