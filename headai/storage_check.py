"""`headai storage check`: what the object store and the database disagree about, in words."""

from collections.abc import Callable

from db.database import Database
from domain.stock import check, repair
from headai.settings import Settings
from storage.objects import ObjectStore


async def storage_check(settings: Settings, *, repairing: bool, say: Callable[[str], None]) -> int:
    """The exit status: 0 when there is nothing to put right, or it was. Raises `StoreUnavailable`."""
    async with Database(settings.database_url) as db, ObjectStore.open(settings.store()) as store:
        stock = await check(db, store)
        for pointer in stock.missing:
            say(f"Record without its object: {pointer.what} {pointer.id} at {pointer.key}")
        for key in stock.strays:
            say(f"Object without a record: {key}")
        for upload in stock.stray_uploads:
            say(f"Parts without a record: {upload.key}, begun {upload.started_at:%Y-%m-%d %H:%M}")
        objects = _counted(stock.objects, "object")
        if stock.is_clean:
            say(f"{objects}, all of them with a record; every record has its object.")
            return 0
        findings = _counted(len(stock.missing) + len(stock.strays) + len(stock.stray_uploads), "finding")
        if not repairing:
            say(f"{objects}, {findings}. Run it with --repair to put right what can be.")
            return 1
        lost = await repair(db, store, stock)
        for pointer in lost:
            say(f"Cannot be put right: {pointer.what} {pointer.id}. Restore {pointer.key} from a backup, or delete it.")
        say(f"{objects}, {findings}, {f'{len(lost)} not put right' if lost else 'all put right'}.")
        return int(bool(lost))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
