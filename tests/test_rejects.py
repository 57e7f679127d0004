"""Rows that cannot be read: counted, told by line, column and reason, and left out where the dataset tolerates it."""

from typing import Any
from uuid import UUID

import pytest

from db.ids import Kind, key_of
from tests.uploading import upload
from workers.datasets import delete_unowned_objects, process_version
from workers.worker import Worker

MAKE = """
mutation ($input: CreateDatasetInput!) {
  createDataset(input: $input) { dataset { id toleratedRejects } errors { __typename code path } }
}
"""
CHANGE = """
mutation ($input: UpdateDatasetInput!) {
  updateDataset(input: $input) { dataset { toleratedRejects revision } errors { __typename code path } }
}
"""
AGAIN = """
mutation ($input: ReprocessDatasetVersionInput!) {
  reprocessDatasetVersion(input: $input) { datasetVersion { status rejectedRows rejects { line } } errors { code } }
}
"""
REPORT = """
query ($id: ID!) {
  datasetVersion(id: $id) {
    number status digest rowCount rejectedRows rejects { line column reason } failure { code message }
    csv { delimiter quote hasHeader encoding nullValues }
    columns { nodes { name type profile { count } } } preview { rows }
  }
}
"""
ROWS = [f"{i},word {i}" for i in range(20)]
ROWS[3], ROWS[7], ROWS[11] = "3,much,too,long", '7,"stray"quote', "11"
BROKEN = "\n".join(["n,word", *ROWS, ""]).encode()
REJECTS = [
    {"line": "5", "column": None, "reason": "4 values where the file has 2 columns"},
    {"line": "9", "column": "word", "reason": "a quote is followed by other text"},
    {"line": "13", "column": None, "reason": "1 value where the file has 2 columns"},
]


def key(version_id: str) -> UUID:
    found = key_of(version_id, Kind.DATASET_VERSION)
    assert found is not None
    return found


async def report(execute: Any, hand: Worker, principal: Any, dataset: str, data: bytes, **given: Any) -> Any:
    id = await upload(execute, principal, dataset, data, **given)
    await process_version(hand, key(id))
    return (await execute(REPORT, principal=principal, id=id))["data"]["datasetVersion"]


async def tolerate(execute: Any, principal: Any, dataset: str, share: float) -> None:
    changed = await execute(CHANGE, principal=principal, input={"id": dataset, "toleratedRejects": share})
    assert changed["data"]["updateDataset"] == {"dataset": {"toleratedRejects": share, "revision": 2}, "errors": []}


async def test_no_reject_is_tolerated_unless_it_was_said(execute, hand, scientist, dataset):
    version = await report(execute, hand, scientist, dataset, BROKEN)

    assert (version["status"], version["rejectedRows"], version["rejects"]) == ("FAILED", "3", REJECTS)
    assert version["failure"] == {
        "code": "INVALID_DATA",
        "message": "Line 5 has 4 values where the file has 2 columns. Give every row the same number of values, and "
        "put values that contain the delimiter in quotes.",
    }


async def test_tolerated_rejects_are_left_out_and_told(execute, hand, scientist, dataset):
    await tolerate(execute, scientist, dataset, 0.15)
    version = await report(execute, hand, scientist, dataset, BROKEN)

    assert (version["status"], version["rowCount"], version["failure"]) == ("READY", "17", None)
    assert (version["rejectedRows"], version["rejects"]) == ("3", REJECTS)
    assert [(c["type"], c["profile"]["count"]) for c in version["columns"]["nodes"]] == [
        ("INTEGER", "17"),
        ("STRING", "17"),
    ]
    assert [row[0] for row in version["preview"]["rows"]] == [i for i in range(20) if i not in (3, 7, 11)]


async def test_more_rejects_than_tolerated_fail_it(execute, hand, scientist, dataset):
    await tolerate(execute, scientist, dataset, 0.14)
    version = await report(execute, hand, scientist, dataset, BROKEN)

    assert (version["status"], version["rejectedRows"], version["rejects"]) == ("FAILED", "3", REJECTS)
    assert version["failure"]["message"] == (
        "3 of 20 rows cannot be read, more than the share of 0.14 that the dataset tolerates. The first: Line 5 has 4 "
        "values where the file has 2 columns. Give every row the same number of values, and put values that contain "
        "the delimiter in quotes."
    )


async def test_a_version_that_failed_is_ready_once_its_rejects_are_tolerated(execute, hand, scientist, dataset):
    id = await upload(execute, scientist, dataset, BROKEN)
    await process_version(hand, key(id))
    await tolerate(execute, scientist, dataset, 1)
    again = await execute(AGAIN, principal=scientist, input={"id": id})
    await process_version(hand, key(id))
    version = (await execute(REPORT, principal=scientist, id=id))["data"]["datasetVersion"]

    assert again["data"]["reprocessDatasetVersion"] == {
        "datasetVersion": {"status": "PROCESSING", "rejectedRows": None, "rejects": None},
        "errors": [],
    }
    assert (version["status"], version["rowCount"], version["rejectedRows"]) == ("READY", "17", "3")


async def test_a_quote_that_hides_an_unknown_number_of_rows_is_never_tolerated(execute, hand, scientist, dataset):
    await tolerate(execute, scientist, dataset, 0.5)
    rows = "".join(f"{i},word\n" for i in range(5000))
    version = await report(execute, hand, scientist, dataset, f'n,word\n1,2\n2,"never closed\n{rows}'.encode())

    assert (version["status"], version["rejects"]) == (
        "FAILED",
        [{"line": "3", "column": "word", "reason": "a quote is opened and never closed"}],
    )
    assert version["failure"]["message"] == (
        "A quote in line 3, column 'word', is opened and never closed: the file may be cut off, or the quote is a "
        "stray one. Therefore it cannot be told how many rows it hides, which is never tolerated."
    )


async def test_of_many_rejects_the_first_hundred_are_told(execute, hand, scientist, dataset):
    await tolerate(execute, scientist, dataset, 0.5)
    rows = "".join(f"{i},word\n{i}\n" for i in range(2500))
    version = await report(execute, hand, scientist, dataset, f"n,word\n{rows}".encode())

    assert (version["status"], version["rowCount"], version["rejectedRows"]) == ("READY", "2500", "2500")
    assert [row["line"] for row in version["rejects"]] == [str(line) for line in range(3, 203, 2)]


@pytest.mark.parametrize("share", [-0.1, 1.5])
async def test_a_share_is_from_0_to_1(execute, scientist, project, dataset, db, share):
    made = await execute(
        MAKE,
        principal=scientist,
        input={"projectId": f"project_{project.id.hex}", "name": "other", "toleratedRejects": share},
    )
    changed = await execute(CHANGE, principal=scientist, input={"id": dataset, "toleratedRejects": share})
    async with db.reading() as session:
        kept = await session.connection.fetch("SELECT name, tolerated_rejects, revision FROM datasets")

    errors = [{"__typename": "ValidationError", "code": "OUT_OF_RANGE", "path": ["input", "toleratedRejects"]}]
    assert made["data"]["createDataset"] == {"dataset": None, "errors": errors}
    assert changed["data"]["updateDataset"] == {"dataset": None, "errors": errors}
    assert [tuple(row) for row in kept] == [("flowers", 0.0, 1)]


async def test_the_share_is_said_when_a_dataset_is_made(execute, scientist, project):
    made = await execute(
        MAKE,
        principal=scientist,
        input={"projectId": f"project_{project.id.hex}", "name": "rough", "toleratedRejects": 0.01},
    )
    assert made["data"]["createDataset"]["dataset"]["toleratedRejects"] == 0.01


async def test_how_a_file_was_read_is_told(execute, hand, scientist, dataset):
    found = await report(execute, hand, scientist, dataset, "näme;n\nZoë;1\n".encode("cp1252"))
    said = await report(
        execute, hand, scientist, dataset, b"1|'a'\nNA|'b'\n", csv=SAID | {"nullValues": ["NA"], "quote": "'"}
    )

    assert found["csv"] == {
        "delimiter": ";",
        "quote": '"',
        "hasHeader": True,
        "encoding": "latin-1",
        "nullValues": [],
    }
    assert said["csv"] == SAID | {"quote": "'", "nullValues": ["NA"]}
    assert said["preview"]["rows"] == [[1, "a"], [None, "b"]]


SAID = {"delimiter": "|", "hasHeader": False, "encoding": "utf-8"}


async def test_the_same_bytes_are_kept_once(execute, hand, scientist, dataset, db, store):
    """A second version shares the objects of the first, unless it is to be read in another way."""
    data = b"a;b\n1;2\n"
    first = await report(execute, hand, scientist, dataset, data)
    second = await report(execute, hand, scientist, dataset, data)
    other = await report(execute, hand, scientist, dataset, data, csv={"delimiter": ","})
    await delete_unowned_objects(hand)
    async with db.reading() as session:
        keys = await session.connection.fetch("SELECT upload_key, data_key FROM dataset_versions ORDER BY number")
        waiting = await session.connection.fetchval("SELECT count(*) FROM unowned_objects")
    kept = [item.key for prefix in ("uploads/", "datasets/") async for item in store.list(prefix)]

    assert second == first | {"number": 2}
    assert (other["status"], [column["name"] for column in other["columns"]["nodes"]]) == ("READY", ["a;b"])
    assert keys[0] == keys[1]
    assert {key for row in keys for key in row} <= set(kept)
    assert len({key for row in keys for key in row}) == 4
    assert waiting == 0
