"""What of the metrics is asked for: which series, which points of them, thinned how."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Text, Uuid, any_, exists, func, literal, not_, select, true
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import JSONB

from auth.permissions import Permission
from db.conditions import one_of
from db.sight import in_sight
from db.tables import metric_series
from db.vocabulary import DownsampleMethod, MetricAxis, MetricScope

IN_SIGHT = in_sight(Permission.METRIC_READ, metric_series.c.project_id, metric_series.c.run_id)


class InvalidPattern(Exception):
    """PostgreSQL does not take the text for a regular expression."""


class LabelMatcher(NamedTuple):
    """A label as a selector wants it; with nothing but the name, it only has to be there."""

    name: str
    eq: str | None = None
    one_of: tuple[str, ...] | None = None
    regex: str | None = None
    not_eq: str | None = None


class Selector(NamedTuple):
    """Which series; `names` may hold `*` for any characters. A part that is None asks for nothing."""

    project_id: UUID | None = None
    scope: MetricScope | None = None
    names: tuple[str, ...] | None = None
    labels: tuple[LabelMatcher, ...] = ()
    run_ids: tuple[UUID, ...] | None = None


class Range(NamedTuple):
    """Which points of a series; every bound is part of the range."""

    first_step: int | None = None
    last_step: int | None = None
    from_at: int | None = None
    to_at: int | None = None
    last: timedelta | None = None


class Wanted(NamedTuple):
    """What of a history, thinned how; without `method` it comes as it is."""

    range: Range = Range()
    method: DownsampleMethod = DownsampleMethod.NONE
    max_points: int = 1000
    axis: MetricAxis = MetricAxis.STEP


class RunMetrics(NamedTuple):
    """Which series of runs, and what of their history."""

    scope: MetricScope
    names: tuple[str, ...] | None
    wanted: Wanted = Wanted()


def let_through(selector: Selector) -> Iterator[ColumnElement[bool]]:
    """What holds for a row of `metric_series` that the selector lets through and the reader may see."""
    series = metric_series.c
    yield IN_SIGHT
    if selector.project_id is not None:
        yield series.project_id == selector.project_id
    if selector.scope is not None:
        yield series.scope == str(selector.scope)
    if selector.run_ids is not None:
        yield series.run_id == any_(literal(list(selector.run_ids), ARRAY(Uuid)))
    if selector.names is not None:
        yield series.name.like(any_(literal([_pattern(name) for name in selector.names], ARRAY(Text))))
    yield from _labelled(selector.labels)


def _pattern(glob: str) -> str:
    escaped = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def _labelled(matchers: Sequence[LabelMatcher]) -> Iterator[ColumnElement[bool]]:
    labels = metric_series.c.labels
    for matcher in matchers:
        entry = (
            func.jsonb_array_elements(labels).table_valued(sql_column("value", JSONB), name="label").render_derived()
        )
        value = func.jsonb_extract_path_text(entry.c.value, "value", type_=Text)
        meant: list[ColumnElement[bool]] = [
            func.jsonb_extract_path_text(entry.c.value, "name", type_=Text) == matcher.name
        ]
        if matcher.eq is not None:
            meant.append(value == matcher.eq)
        if matcher.one_of is not None:
            meant.append(one_of(value, matcher.one_of))
        if matcher.regex is not None:
            meant.append(value.regexp_match(f"^(?:{matcher.regex})$"))
        if matcher.not_eq is not None and len(meant) == 1:
            meant.append(value == matcher.not_eq)
            yield not_(exists(select(true()).select_from(entry).where(*meant).correlate_except(entry)))
            continue
        if matcher.not_eq is not None:
            meant.append(value != matcher.not_eq)
        yield exists(select(true()).select_from(entry).where(*meant).correlate_except(entry))
