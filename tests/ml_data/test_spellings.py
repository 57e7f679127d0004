"""The quick way to tell whether a text is written as a type says the same as the regular expressions that define it."""

import random

import duckdb
import pyarrow as pa
import pytest

from ml.engine import text
from ml.spellings import MISFIT, SPELLINGS, agreed, fits

WRITTEN = (
    "1", "-5", "+7", " 5 ", "1.5", "1e5", ".5", "5.", "1e400", "9223372036854775808", "1_000", "0x1F", "1__0", "5\v",
    "nan", "nan(1)", "inf", "-Infinity", "infinity", "true", "False", "2020-01-01", "2020-1-1", "0000-01-01",
    "2020-01-01 (BC)", "epoch", "12020-01-01", "2020-01-01 10:00", "2020-01-01 10:00:00", "2020-01-01 24:00:00",
    "2020-01-01T10:00:00.25Z", "2020-01-01 10:00:00+02", "12020-01-01 10:00:00", "2020-01-01 10:00:00.123456789",
)  # fmt: skip
STROKES = "0123456789+-._ eExXbB\t\nnaNiInfF(T:Z/,½٣"


@pytest.fixture(scope="module")
def texts() -> pa.Table:
    """Texts that are near to values: each is a value with one to three strokes of a key too many, too few or wrong."""
    chance = random.Random(7)
    made = set(WRITTEN)
    for _ in range(20_000):
        letters = list(chance.choice(WRITTEN))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(letters) + 1)
            letters[place : place + chance.randint(0, 1)] = chance.choice(["", chance.choice(STROKES)])
        made.add("".join(letters))
    return pa.table({"v": sorted(made - {""})})


@pytest.mark.parametrize("cast", SPELLINGS)
def test_both_ways_agree(texts: pa.Table, cast: str) -> None:
    quick = agreed(cast, "v").replace(f"error({text(MISFIT)})", "NULL").replace(" CAST(v AS", " TRY_CAST(v AS")
    quick = quick.replace("(CAST(v AS", "(TRY_CAST(v AS")
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.register("texts", texts)
        differing = engine.execute(f"SELECT v FROM texts WHERE {fits(cast, 'v')} <> (({quick}) IS NOT NULL)").fetchall()
        fitting = engine.execute(f"SELECT count(*) FROM texts WHERE {fits(cast, 'v')}").fetchall()[0][0]
    assert differing == []
    assert fitting > 1
