"""Why work failed: the message is for everybody who sees the work, the detail only for some."""

from typing import Any

import pytest
from sqlalchemy import update

from auth.permissions import Permission
from auth.principals import HeldGrant, Principal
from db.ids import Kind, global_id, new_id
from db.tables import dataset_versions
from tests.ready import cancer, ready_version

FAILURE = {"code": "INTERNAL", "message": "The process ended.", "retryable": True, "detail": "Traceback: x"}
QUERY = "query ($id: ID!) { datasetVersion(id: $id) { failure { code message retryable detail } } }"


@pytest.fixture
async def failed(db: Any, store: Any, project: Any, tmp_path: Any) -> str:
    version = await ready_version(db, store, project, tmp_path, cancer(), status="FAILED")
    async with db.transaction() as session:
        await session.run(
            update(dataset_versions).where(dataset_versions.c.id == version).values(failure=dict(FAILURE))
        )
    return global_id(Kind.DATASET_VERSION, version)


@pytest.mark.parametrize(
    ("permissions", "detail"),
    [
        ({Permission.DATASET_READ}, None),
        ({Permission.DATASET_READ, Permission.DATASET_PREVIEW, Permission.MODEL_READ}, None),
        ({Permission.DATASET_READ, Permission.RUN_READ}, "Traceback: x"),
        ({Permission.DATASET_READ, Permission.DATASET_UPDATE}, "Traceback: x"),
    ],
)
async def test_the_detail_is_for_those_who_read_logs_or_change_data(execute, scientist, failed, permissions, detail):
    grant = HeldGrant(new_id(), frozenset(permissions))
    reader = Principal.of(scientist.user_id, scientist.session_id, [grant])

    seen = await execute(QUERY, principal=reader, id=failed)

    assert seen == {"data": {"datasetVersion": {"failure": FAILURE | {"detail": detail}}}}
