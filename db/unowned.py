"""Queries on objects that no row points at any more: noted with the change that let go of them."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ARRAY, Text, any_, bindparam, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db.database import Prepared, Session
from db.tables import unowned_objects

AT_ONCE = 100
_DUE = Prepared(
    select(unowned_objects.c.key)
    .where(unowned_objects.c.due_at <= func.clock_timestamp())
    .order_by(unowned_objects.c.due_at)
    .limit(AT_ONCE)
)
_FORGET = Prepared(delete(unowned_objects).where(unowned_objects.c.key == any_(bindparam("keys", type_=ARRAY(Text)))))


async def let_go(session: Session, keys: Sequence[str], *, after: timedelta = timedelta(0)) -> None:
    """Have the objects at these keys deleted, `after` so long; a key that waits already is due at the earlier time.

    A key that ends in `/` stands for everything below it.
    """
    wanted = func.unnest(literal(sorted(set(keys)), ARRAY(Text)), type_=Text).column_valued("wanted")
    made = upsert(unowned_objects).from_select(
        ["key", "due_at"], select(wanted, func.clock_timestamp() + literal(after))
    )
    earlier = func.least(unowned_objects.c.due_at, made.excluded.due_at)
    await session.run(made.on_conflict_do_update(index_elements=[unowned_objects.c.key], set_={"due_at": earlier}))


async def let_go_under(session: Session, prefix: str) -> None:
    """Have what is noted under a prefix deleted now."""
    await session.run(
        update(unowned_objects)
        .where(unowned_objects.c.key.startswith(f"{prefix}/", autoescape=True))
        .values(due_at=func.clock_timestamp())
    )


async def due(session: Session) -> list[str]:
    """Keys whose time has come, the oldest first, `AT_ONCE` at most."""
    return [key for (key,) in await session.records(_DUE)]


async def forget(session: Session, keys: Sequence[str]) -> None:
    """There is nothing at these keys any more, or a row points at what is there."""
    await session.run(_FORGET, keys=list(keys))
