"""The tables brought up to date, with a message in terms of a setting when that cannot be done."""

import asyncpg
import sqlalchemy.exc

from db.migrate import upgrade
from headai.settings import Settings, SettingsError


def migrate(settings: Settings) -> None:
    """Run every migration that is missing. Raises `SettingsError`."""
    try:
        upgrade(settings.database_url)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise SettingsError(f"The database at HEADAI_DATABASE_URL cannot be brought up to date: {error}") from error
