"""The scalars of the API: how each is written in JSON, and what of it is refused.

The Python types stand for themselves in annotations: `datetime` is DateTime, `timedelta` is Duration.
"""

import math
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NewType, TypeGuard

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

BigInt = NewType("BigInt", int)
JSON = NewType("JSON", object)
JSONObject = NewType("JSONObject", dict[str, Any])
URL = NewType("URL", str)
SHA256 = NewType("SHA256", str)
FloatVector = NewType("FloatVector", list[float | None])
IntVector = NewType("IntVector", list[int])
TimestampVector = NewType("TimestampVector", list[int])

_SHA256 = re.compile(r"[0-9a-f]{64}")
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_DURATION = re.compile(
    r"P(?:(?P<weeks>\d+)W|(?=.)(?:(?P<days>\d+)D)?(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?"
    r"(?:(?P<seconds>\d+(?:\.\d{1,6})?)S)?)?)"
)
_INT64 = 2**63
_SAFE = 2**53 - 1
_MAX_SECONDS = 100 * 365 * 86400


def show_datetime(value: datetime) -> str:
    at_utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return f"{at_utc.isoformat(timespec='milliseconds')[:-6]}Z"


def read_datetime(value: Any) -> datetime:
    if isinstance(value, str) and "T" in value.upper():
        with suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
    raise GraphQLError("A DateTime is written as RFC 3339 has it, with a time zone: 2026-01-31T12:00:00Z.")


def show_duration(value: timedelta | float) -> str:
    """ISO 8601; a plain number is seconds."""
    micros = round((value.total_seconds() if isinstance(value, timedelta) else value) * 1e6)
    sign, micros = ("-" if micros < 0 else ""), abs(micros)
    days, micros = divmod(micros, 86_400_000_000)
    hours, micros = divmod(micros, 3_600_000_000)
    minutes, micros = divmod(micros, 60_000_000)
    seconds = f"{micros / 1e6:.6f}".rstrip("0").rstrip(".")
    time = "".join(
        f"{amount}{unit}" for amount, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if str(amount) != "0"
    )
    date = f"{days}D" if days else ""
    return f"{sign}P{date}{'T' + time if time else ''}" if date or time else "PT0S"


def read_duration(value: Any) -> timedelta:
    found = _DURATION.fullmatch(value) if isinstance(value, str) and len(value) <= 64 else None
    if found is not None:
        duration = {unit: float(amount) for unit, amount in found.groupdict().items() if amount is not None}
        weights = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
        if sum(amount * weights[unit] for unit, amount in duration.items()) <= _MAX_SECONDS:
            return timedelta(**duration)
    raise GraphQLError("A Duration is written as ISO 8601 has it, in weeks or days and smaller: PT15M, P7D, PT0.5S.")


def read_big_int(value: Any) -> int:
    number = value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        number = int(value)
    if type(number) is int and -_INT64 <= number < _INT64:
        return number
    raise GraphQLError("A BigInt is a 64-bit integer, as a number or as a string of digits.")


def read_json(value: Any) -> Any:
    return value


def read_json_object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise GraphQLError('A JSONObject is an object: {"name": value}.')


def read_sha256(value: Any) -> str:
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return value
    raise GraphQLError("A SHA256 has 64 lowercase hexadecimal digits.")


def read_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise GraphQLError("This has to be a string.")


def read_float_vector(value: Any) -> list[float | None]:
    if isinstance(value, list) and _FLOATS.issuperset(map(type, value)):
        return value
    raise GraphQLError("A FloatVector is an array of numbers and nulls.")


def read_int_vector(value: Any) -> list[int]:
    if _integers(value, -_SAFE, _SAFE):
        return value
    raise GraphQLError("An IntVector is an array of integers within ±(2^53-1).")


def read_timestamp_vector(value: Any) -> list[int]:
    if _integers(value, 0, _SAFE):
        return value
    raise GraphQLError("A TimestampVector is an array of Unix epoch milliseconds.")


def _integers(value: Any, least: int, most: int) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or not _INTS.issuperset(map(type, value)):
        return False
    return not value or (least <= min(value) and max(value) <= most)


def show_float_vector(value: Any) -> list[float | None]:
    if None not in value and all(map(math.isfinite, value)):
        return list(value)
    return [None if item is None or not math.isfinite(item) else item for item in value]


_INTS = frozenset({int})
_FLOATS = frozenset({int, float, type(None)})


def _as_it_is(value: Any) -> Any:
    return value


def _scalar(name: str, description: str, show: Any, read: Any, url: str | None = None) -> ScalarDefinition:
    return strawberry.scalar(name=name, description=description, serialize=show, parse_value=read, specified_by_url=url)


SCALARS: dict[object, ScalarDefinition] = {
    datetime: _scalar(
        "DateTime",
        "RFC 3339 instant, UTC, millisecond precision.",
        show_datetime,
        read_datetime,
        "https://scalars.graphql.org/andimarek/date-time.html",
    ),
    timedelta: _scalar(
        "Duration",
        "ISO 8601 duration, for example `PT15M`.",
        show_duration,
        read_duration,
        "https://scalars.graphql.org/chillicream/duration.html",
    ),
    BigInt: _scalar(
        "BigInt", "64-bit signed integer, serialised as a string; integers are accepted on input.", str, read_big_int
    ),
    JSON: _scalar("JSON", "Any JSON value.", _as_it_is, read_json),
    JSONObject: _scalar("JSONObject", "A JSON object.", _as_it_is, read_json_object),
    URL: _scalar("URL", "Absolute URL.", _as_it_is, read_text, "https://url.spec.whatwg.org/"),
    SHA256: _scalar("SHA256", "64 lowercase hexadecimal digits.", _as_it_is, read_sha256),
    FloatVector: _scalar(
        "FloatVector",
        "A JSON array of numbers; null stands where the value is not finite. "
        "One leaf, so 10 000 values cost one completion.",
        show_float_vector,
        read_float_vector,
    ),
    IntVector: _scalar("IntVector", "A JSON array of integers within ±(2^53-1).", _as_it_is, read_int_vector),
    TimestampVector: _scalar(
        "TimestampVector", "A JSON array of Unix epoch milliseconds.", _as_it_is, read_timestamp_vector
    ),
}
