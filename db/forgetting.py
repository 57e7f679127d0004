"""Deleting what is too old, a batch at a time."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Table, bindparam, delete, select, tuple_

from db.database import Prepared


def forgetting(table: Table, is_old: ColumnElement[Any]) -> Prepared:
    """The statement that deletes old rows, `limit` at most; rows that somebody holds wait for the next time."""
    keys = list(table.primary_key.columns)
    old = select(*keys).where(is_old).limit(bindparam("limit", type_=BigInteger)).with_for_update(skip_locked=True)
    return Prepared(delete(table).where(tuple_(*keys).in_(old)))
