"""What a reader of the database has seen: every transaction that was over at one moment.

A reader that asks for what its last snapshot could not see gets each row once, as soon as it is committed, however
long other transactions stay open.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Text, and_, cast, func, literal, not_
from sqlalchemy.types import UserDefinedType

from db.tables import Xid8


class PgSnapshot(UserDefinedType[str]):
    """PostgreSQL's `pg_snapshot`, as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "pg_snapshot"


class Snapshot(NamedTuple):
    """Every transaction before `xmin` is over, none from `xmax` on has begun; `running` are those between that run."""

    xmin: int
    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def of(cls, text: str) -> Self:
        """From PostgreSQL's own text: `10:20:10,14,15`."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(one) for one in running.split(",") if one))

    @classmethod
    def before(cls, transaction: int) -> Self:
        """The moment when every transaction before this one was over, and nothing else had begun."""
        return cls(transaction, transaction)

    def saw(self, transactions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some transactions were over."""
        over: NDArray[np.bool_] = transactions < self.xmax
        if self.running:
            over &= ~np.isin(transactions, self.running)
        return over

    @property
    def text(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"


def now() -> ColumnElement[str]:
    """The snapshot of the statement itself."""
    return cast(func.pg_current_snapshot(), Text)


def unseen(changed: ColumnElement[Any], snapshot: Snapshot) -> ColumnElement[bool]:
    """Rows of transactions that a snapshot could not see."""
    given = cast(literal(snapshot.text, Text), PgSnapshot)
    return and_(changed >= literal(snapshot.xmin, Xid8), not_(func.pg_visible_in_snapshot(changed, given)))


def seen(changed: ColumnElement[Any], snapshot: Snapshot) -> ColumnElement[bool]:
    return func.pg_visible_in_snapshot(changed, cast(literal(snapshot.text, Text), PgSnapshot))
