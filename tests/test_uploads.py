"""Uploads through the API: the parts go to the signed URLs of a real store."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from db.database import Database
from db.ids import Kind, key_of
from domain.uploads import expire
from storage.objects import UploadMissing
from tests.uploading import COMPLETE, START, VERSION, complete, put, start, upload

MIB = 1 << 20
CSV = b"x,y\n1,2\n3,4\n"
PARTS = """
mutation ($input: RequestUploadPartsInput!) {
  requestUploadParts(input: $input) {
    upload { id } parts { partNumber url }
    errors { __typename code message path ... on ValidationError { allowed } ... on InvalidStateError { currentState } }
  }
}
"""
ABORT = """
mutation ($input: AbortUploadInput!) {
  abortUpload(input: $input) {
    upload { status version { status failure { code message retryable } } }
    errors { __typename code ... on InvalidStateError { currentState allowedStates } }
  }
}
"""
SESSION = "query ($id: ID!) { uploadSession(id: $id) { status completedParts { partNumber etag sizeBytes } } }"


async def counts(db: Database) -> tuple[int, ...]:
    """Rows that an upload could have left: versions, upload sessions, jobs, events."""
    async with db.reading() as session:
        tables = ("dataset_versions", "upload_sessions", "pgqueuer", "events")
        return tuple([await session.connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables])


async def test_an_upload_starts_with_targets_for_its_first_parts(execute, scientist, dataset):
    started = await start(execute, scientist, dataset, 20 * MIB, note="first", sha256="ab" * 32)

    target = started["parts"][0]
    lifetime = datetime.fromisoformat(target["expiresAt"]) - datetime.now(UTC)
    assert started["upload"] | {"id": "", "version": started["upload"]["version"] | {"id": ""}} == {
        "id": "",
        "fileName": "data.csv",
        "sizeBytes": str(20 * MIB),
        "partSizeBytes": str(8 * MIB),
        "partCount": 3,
        "status": "OPEN",
        "completedParts": [],
        "dataset": {"id": dataset},
        "version": {
            "id": "",
            "number": 1,
            "status": "UPLOADING",
            "format": "CSV",
            "note": "first",
            "source": {"kind": "UPLOAD", "uploadedFileName": "data.csv", "uri": None},
        },
    }
    assert [(part["partNumber"], part["method"]) for part in started["parts"]] == [(1, "PUT"), (2, "PUT"), (3, "PUT")]
    assert lifetime >= timedelta(hours=1)


async def test_parts_arrive_are_told_and_become_the_object(execute, scientist, dataset, store):
    data = bytes(range(256)) * (6 * MIB // 256)
    started = await start(execute, scientist, dataset, len(data), partSizeBytes=5 * MIB)
    id = started["upload"]["id"]
    etags = {2: await put(started["parts"][1], data[5 * MIB :])}

    told = (await execute(SESSION, principal=scientist, id=id))["data"]["uploadSession"]
    etags[1] = await put(started["parts"][0], data[: 5 * MIB])
    completed = await complete(execute, scientist, id, etags)

    assert told == {
        "status": "OPEN",
        "completedParts": [{"partNumber": 2, "etag": etags[2], "sizeBytes": str(MIB)}],
    }
    assert completed == {
        "upload": {"id": id, "status": "COMPLETED"},
        "datasetVersion": {
            "id": started["upload"]["version"]["id"],
            "number": 1,
            "status": "PROCESSING",
            "sizeBytes": str(len(data)),
            "progress": {"phase": "queued", "fraction": 0.0},
        },
        "errors": [],
    }
    link = "query ($id: ID!) { datasetVersion(id: $id) { download { url sizeBytes } } }"
    found = await execute(link, principal=scientist, id=completed["datasetVersion"]["id"])
    async with httpx.AsyncClient() as client:
        answer = await client.get(found["data"]["datasetVersion"]["download"]["url"])
    assert hashlib.sha256(answer.content).hexdigest() == hashlib.sha256(data).hexdigest()
    assert answer.headers["content-disposition"].startswith('attachment; filename="data.csv"')


async def test_completing_again_answers_the_same_and_does_nothing(execute, scientist, dataset, db):
    started = await start(execute, scientist, dataset, len(CSV))
    etags = {1: await put(started["parts"][0], CSV)}

    first = await complete(execute, scientist, started["upload"]["id"], etags)
    before = await counts(db)
    again = await complete(execute, scientist, started["upload"]["id"], etags)

    assert again == first
    assert await counts(db) == before
    assert before == (1, 1, 1, 3), "a version, an upload, one job; project, dataset and version were announced"


async def test_two_at_once_complete_it_once(execute, scientist, dataset, db):
    started = await start(execute, scientist, dataset, len(CSV))
    etags = {1: await put(started["parts"][0], CSV)}

    both = await asyncio.gather(*(complete(execute, scientist, started["upload"]["id"], etags) for _ in range(2)))

    assert [answer["upload"]["status"] for answer in both] == ["COMPLETED", "COMPLETED"]
    assert await counts(db) == (1, 1, 1, 3)


async def test_a_crash_after_the_parts_were_joined_is_completed_by_completing_again(
    execute, scientist, dataset, db, store
):
    started = await start(execute, scientist, dataset, len(CSV))
    etag = await put(started["parts"][0], CSV)
    async with db.reading() as session:
        key, storage_id = await session.connection.fetchrow("SELECT object_key, storage_upload_id FROM upload_sessions")
    await store.complete_multipart(key, storage_id, [(1, etag)])

    wrong = await complete(execute, scientist, started["upload"]["id"], {1: '"0123456789abcdef0123456789abcdef"'})
    right = await complete(execute, scientist, started["upload"]["id"], {1: etag})

    assert [error["code"] for error in wrong["errors"]] == ["CHECKSUM_MISMATCH"]
    assert right["errors"] == []
    assert right["datasetVersion"]["status"] == "PROCESSING"


async def test_missing_parts_are_named(execute, scientist, dataset, db):
    started = await start(execute, scientist, dataset, 16 * MIB + 1)
    etag = await put(started["parts"][2], b"x")
    before = await counts(db)

    unnamed = await complete(execute, scientist, started["upload"]["id"], {3: etag})
    unsent = await complete(execute, scientist, started["upload"]["id"], {1: "a", 2: "b", 3: etag})

    missing = {
        "__typename": "ValidationError",
        "code": "UPLOAD_INCOMPLETE",
        "path": ["input", "parts"],
        "allowed": {"missingPartNumbers": [1, 2]},
    }
    assert unnamed["errors"] == [missing | {"message": "Not all parts are named: 1, 2."}]
    assert unsent["errors"] == [missing | {"message": "Not all parts are in the store: 1, 2."}]
    assert (unsent["upload"], unsent["datasetVersion"]) == (None, None)
    assert await counts(db) == before


async def test_a_wrong_etag_is_a_checksum_mismatch_and_the_upload_stays_open(execute, scientist, dataset, db):
    started = await start(execute, scientist, dataset, len(CSV))
    etag = await put(started["parts"][0], CSV)
    before = await counts(db)

    refused = await complete(execute, scientist, started["upload"]["id"], {1: '"0123456789abcdef0123456789abcdef"'})
    told = await execute(SESSION, principal=scientist, id=started["upload"]["id"])

    assert [(error["code"], error["path"]) for error in refused["errors"]] == [
        ("CHECKSUM_MISMATCH", ["input", "parts"])
    ]
    assert refused["errors"][0]["message"] == (
        f'Part 1 has the etag {etag}, not "0123456789abcdef0123456789abcdef". '
        "Send that part again, and complete with the ETag the store answers."
    )
    assert told["data"]["uploadSession"]["status"] == "OPEN"
    assert await counts(db) == before


async def test_a_part_of_another_size_is_refused(execute, scientist, dataset, db):
    started = await start(execute, scientist, dataset, len(CSV) + 5)
    etag = await put(started["parts"][0], CSV)
    before = await counts(db)

    refused = await complete(execute, scientist, started["upload"]["id"], {1: etag})

    assert refused["errors"] == [
        {
            "__typename": "ValidationError",
            "code": "INVALID",
            "message": "Part 1 has 12 bytes; it has to have 17. Send it again.",
            "path": ["input", "parts", "0"],
            "allowed": {"sizeBytes": 17},
        }
    ]
    assert await counts(db) == before


async def test_a_part_that_was_sent_again_counts_by_its_etag(execute, scientist, dataset):
    started = await start(execute, scientist, dataset, len(CSV))
    await put(started["parts"][0], CSV[::-1])
    etag = await put(started["parts"][0], CSV)

    completed = await complete(execute, scientist, started["upload"]["id"], {1: etag.strip('"')})

    assert completed["errors"] == []


async def test_two_different_digests_are_refused(execute, scientist, dataset):
    started = await start(execute, scientist, dataset, len(CSV), sha256="ab" * 32)
    etag = await put(started["parts"][0], CSV)

    refused = await complete(execute, scientist, started["upload"]["id"], {1: etag}, sha256="cd" * 32)

    assert [(error["code"], error["path"]) for error in refused["errors"]] == [
        ("CHECKSUM_MISMATCH", ["input", "sha256"])
    ]


async def test_more_targets_on_request(execute, scientist, dataset):
    started = await start(execute, scientist, dataset, 200 * 5 * MIB, partSizeBytes=5 * MIB)
    id = started["upload"]["id"]

    more = await execute(PARTS, principal=scientist, input={"uploadId": id, "partNumbers": [101, 200]})
    beyond = await execute(PARTS, principal=scientist, input={"uploadId": id, "partNumbers": [1, 201, 0]})

    assert len(started["parts"]) == 100
    assert [part["partNumber"] for part in more["data"]["requestUploadParts"]["parts"]] == [101, 200]
    assert beyond["data"]["requestUploadParts"] == {
        "upload": None,
        "parts": None,
        "errors": [
            {
                "__typename": "ValidationError",
                "code": "OUT_OF_RANGE",
                "message": "The parts of this upload are numbered from 1 to 200.",
                "path": ["input", "partNumbers", place],
                "allowed": {"min": 1, "max": 200},
            }
            for place in ("1", "2")
        ],
    }


async def test_aborting_frees_the_parts_and_fails_the_version(execute, scientist, dataset, db, store):
    started = await start(execute, scientist, dataset, len(CSV))
    id = started["upload"]["id"]
    etag = await put(started["parts"][0], CSV)

    aborted = (await execute(ABORT, principal=scientist, input={"uploadId": id}))["data"]["abortUpload"]
    again = (await execute(ABORT, principal=scientist, input={"uploadId": id}))["data"]["abortUpload"]
    late = await complete(execute, scientist, id, {1: etag})
    more = await execute(PARTS, principal=scientist, input={"uploadId": id, "partNumbers": [1]})

    assert (
        aborted
        == again
        == {
            "upload": {
                "status": "ABORTED",
                "version": {
                    "status": "FAILED",
                    "failure": {"code": "CANCELED", "message": "The upload was aborted.", "retryable": False},
                },
            },
            "errors": [],
        }
    )
    assert late["errors"] == [
        {
            "__typename": "InvalidStateError",
            "code": "INVALID_STATE",
            "message": "This upload is ABORTED: it is too late to complete it.",
            "path": ["input", "uploadId"],
            "currentState": "ABORTED",
        }
    ]
    assert more["data"]["requestUploadParts"]["errors"][0]["currentState"] == "ABORTED"
    async with db.reading() as session:
        key = await session.connection.fetchval("SELECT object_key FROM upload_sessions")
        assert await session.connection.fetchval("SELECT count(*) FROM pgqueuer") == 0
    assert await store.head(key) is None


async def test_of_completing_and_aborting_at_once_one_wins_whole(execute, scientist, dataset, db, store):
    for _ in range(6):
        started = await start(execute, scientist, dataset, len(CSV))
        id = started["upload"]["id"]
        etag = await put(started["parts"][0], CSV)
        completed, aborted = await asyncio.gather(
            complete(execute, scientist, id, {1: etag}),
            execute(ABORT, principal=scientist, input={"uploadId": id}),
        )
        async with db.reading() as session:
            upload_status, version_status, key = await session.connection.fetchrow(
                "SELECT u.status, v.status, u.object_key FROM upload_sessions u JOIN dataset_versions v "
                "ON v.id = u.version_id ORDER BY u.created_at DESC LIMIT 1"
            )
        outcome = (
            completed["errors"] == [],
            aborted["data"]["abortUpload"]["errors"] == [],
            upload_status,
            version_status,
            await store.head(key) is not None,
        )
        assert outcome in {
            (True, False, "COMPLETED", "PROCESSING", True),
            (False, True, "ABORTED", "FAILED", False),
        }


async def test_a_complete_upload_cannot_be_aborted(execute, scientist, dataset, db):
    started = await start(execute, scientist, dataset, len(CSV))
    etag = await put(started["parts"][0], CSV)
    await complete(execute, scientist, started["upload"]["id"], {1: etag})
    before = await counts(db)

    refused = await execute(ABORT, principal=scientist, input={"uploadId": started["upload"]["id"]})

    assert refused["data"]["abortUpload"] == {
        "upload": None,
        "errors": [
            {
                "__typename": "InvalidStateError",
                "code": "INVALID_STATE",
                "currentState": "COMPLETED",
                "allowedStates": ["OPEN"],
            }
        ],
    }
    assert await counts(db) == before


async def test_an_upload_that_is_too_old_is_expired_and_its_parts_are_freed(execute, scientist, dataset, db, store):
    kept = await start(execute, scientist, dataset, len(CSV))
    started = await start(execute, scientist, dataset, len(CSV))
    id = started["upload"]["id"]
    etag = await put(started["parts"][0], CSV)
    async with db.transaction() as session:
        storage_id, object_key = await session.connection.fetchrow(
            "UPDATE upload_sessions SET expires_at = now() WHERE id = $1 RETURNING storage_upload_id, object_key",
            key_of(id, Kind.UPLOAD),
        )

    told = await execute(SESSION, principal=scientist, id=id)
    late = await complete(execute, scientist, id, {1: etag})
    await expire(db, store)
    await expire(db, store)
    version = await execute(VERSION, principal=scientist, id=started["upload"]["version"]["id"])
    other = await execute(SESSION, principal=scientist, id=kept["upload"]["id"])

    assert told["data"]["uploadSession"] == {"status": "EXPIRED", "completedParts": []}
    assert late["errors"][0]["currentState"] == "EXPIRED"
    assert version["data"]["datasetVersion"]["status"] == "FAILED"
    assert version["data"]["datasetVersion"]["failure"] == {
        "code": "CANCELED",
        "message": "The upload was not completed in time.",
        "retryable": False,
        "detail": None,
    }
    assert (await execute(SESSION, principal=scientist, id=id))["data"]["uploadSession"]["status"] == "EXPIRED"
    assert other["data"]["uploadSession"]["status"] == "OPEN"
    with pytest.raises(UploadMissing):
        await store.list_parts(object_key, storage_id)


@pytest.mark.parametrize(
    ("given", "code", "path"),
    [
        ({"fileName": "../etc/passwd"}, "INVALID", ["input", "fileName"]),
        ({"fileName": "a\nb.csv"}, "INVALID", ["input", "fileName"]),
        ({"fileName": "a\x00b.csv"}, "INVALID", ["input", "fileName"]),
        ({"fileName": " "}, "REQUIRED", ["input", "fileName"]),
        ({"fileName": "x" * 256}, "TOO_LONG", ["input", "fileName"]),
        ({"sizeBytes": -1}, "OUT_OF_RANGE", ["input", "sizeBytes"]),
        ({"sizeBytes": 1 << 41}, "OUT_OF_RANGE", ["input", "sizeBytes"]),
        ({"partSizeBytes": MIB}, "OUT_OF_RANGE", ["input", "partSizeBytes"]),
        ({"sizeBytes": 100_000 * MIB, "partSizeBytes": 5 * MIB}, "OUT_OF_RANGE", ["input", "partSizeBytes"]),
        ({"csv": {"delimiter": ";;"}}, "INVALID", ["input", "csv"]),
        ({"csv": {"encoding": "klingon"}}, "INVALID", ["input", "csv"]),
        ({"format": "PARQUET", "csv": {}}, "INVALID", ["input", "csv"]),
        ({"note": "a\ud800b"}, "INVALID", ["input", "note"]),
        ({"datasetId": f"dataset_{'0' * 32}"}, "NOT_FOUND", ["input", "datasetId"]),
        ({"datasetId": f"project_{'0' * 32}"}, "NOT_FOUND", ["input", "datasetId"]),
        ({"idempotencyKey": "x" * 256}, "TOO_LONG", ["input", "idempotencyKey"]),
    ],
)
async def test_an_upload_that_cannot_be_is_refused_and_nothing_is_written(
    execute, scientist, dataset, db, given, code, path
):
    before = await counts(db)
    wanted = {"datasetId": dataset, "fileName": "data.csv", "sizeBytes": 12, "format": "CSV", **given}

    refused = (await execute(START, principal=scientist, input=wanted))["data"]["startUpload"]

    assert (refused["upload"], refused["parts"]) == (None, None)
    assert [(error["code"], error["path"]) for error in refused["errors"]] == [(code, path)]
    assert await counts(db) == before


async def test_ids_of_nothing_and_of_other_types_are_not_found(execute, scientist, dataset):
    for id in (f"upload_{'0' * 32}", dataset, "nonsense"):
        refused = await execute(COMPLETE, principal=scientist, input={"uploadId": id, "parts": []})
        assert [(error["code"], error["path"]) for error in refused["data"]["completeUpload"]["errors"]] == [
            ("NOT_FOUND", ["input", "uploadId"])
        ]
        assert (await execute(SESSION, principal=scientist, id=id))["data"] == {"uploadSession": None}


async def test_a_viewer_may_not_upload_and_a_stranger_sees_no_upload(execute, caller, scientist, dataset):
    viewer, stranger = await caller("Viewer"), await caller(None)
    started = await start(execute, scientist, dataset, len(CSV))
    wanted = {"datasetId": dataset, "fileName": "data.csv", "sizeBytes": 12, "format": "CSV"}

    refused = await execute(START, principal=viewer, input=wanted)
    told = await execute(SESSION, principal=stranger, id=started["upload"]["id"])

    assert refused["data"] == {"startUpload": None}
    assert [error["extensions"]["code"] for error in refused["errors"]] == ["FORBIDDEN"]
    assert told["data"] == {"uploadSession": None}


async def test_versions_that_start_at_once_have_numbers_without_gaps(execute, scientist, dataset, db):
    started = await asyncio.gather(*(start(execute, scientist, dataset, 1) for _ in range(6)))

    assert sorted(one["upload"]["version"]["number"] for one in started) == [1, 2, 3, 4, 5, 6]


async def test_an_idempotency_key_starts_one_upload(execute, scientist, caller, dataset, db):
    wanted = {"datasetId": dataset, "fileName": "a.csv", "sizeBytes": 1, "format": "CSV", "idempotencyKey": "k"}

    both = await asyncio.gather(*(execute(START, principal=scientist, input=wanted) for _ in range(2)))
    other = await execute(START, principal=scientist, input={**wanted, "sizeBytes": 2})
    colleague = await execute(START, principal=await caller("Data Scientist"), input=wanted)

    ids = [answer["data"]["startUpload"]["upload"]["id"] for answer in both]
    assert ids[0] == ids[1]
    assert [(error["code"], error["path"]) for error in other["data"]["startUpload"]["errors"]] == [
        ("IDEMPOTENCY_MISMATCH", ["input", "idempotencyKey"])
    ]
    assert colleague["data"]["startUpload"]["upload"]["id"] != ids[0]
    assert (await counts(db))[:2] == (2, 2)


async def test_the_same_bytes_again_are_another_version(execute, scientist, dataset):
    first = await upload(execute, scientist, dataset, CSV)
    second = await upload(execute, scientist, dataset, CSV)

    assert key_of(first, Kind.DATASET_VERSION) != key_of(second, Kind.DATASET_VERSION)
