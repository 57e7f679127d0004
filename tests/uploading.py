"""Uploading a file in tests as a client does: through the API, and by PUT to the signed URLs."""

from typing import Any

import httpx

from auth.principals import Principal
from db.rows import Project

CREATE_DATASET = """
mutation ($input: CreateDatasetInput!) {
  createDataset(input: $input) {
    dataset { id name project { slug } tags { key value } createdBy { ... on User { username } } revision }
    errors {
      __typename code message path
      ... on AlreadyExistsError { existing { id } } ... on ValidationError { allowed }
    }
  }
}
"""
START = """
mutation ($input: StartUploadInput!) {
  startUpload(input: $input) {
    upload {
      id fileName sizeBytes partSizeBytes partCount status completedParts { partNumber }
      dataset { id } version { id number status format note source { kind uploadedFileName uri } }
    }
    parts { partNumber method url headers { name value } expiresAt }
    errors { __typename code message path ... on ValidationError { allowed } }
  }
}
"""
COMPLETE = """
mutation ($input: CompleteUploadInput!) {
  completeUpload(input: $input) {
    upload { id status }
    datasetVersion { id number status sizeBytes progress { phase fraction } }
    errors { __typename code message path ... on ValidationError { allowed } ... on InvalidStateError { currentState } }
  }
}
"""
VERSION = """
query ($id: ID!) {
  datasetVersion(id: $id) {
    number status digest sizeBytes rowCount columnCount progress { phase fraction }
    failure { code message retryable detail }
    columns { nodes { name position type nullable role } }
  }
}
"""


async def create_dataset(execute: Any, principal: Principal, project: Project, name: str = "flowers") -> str:
    made = await execute(
        CREATE_DATASET, principal=principal, input={"projectId": f"project_{project.id.hex}", "name": name}
    )
    assert made["data"]["createDataset"]["errors"] == []
    id: str = made["data"]["createDataset"]["dataset"]["id"]
    return id


async def start(execute: Any, principal: Principal, dataset_id: str, size: int, **given: Any) -> dict[str, Any]:
    """The payload of `startUpload`, which was not refused."""
    wanted = {"datasetId": dataset_id, "fileName": "data.csv", "sizeBytes": size, "format": "CSV", **given}
    started = (await execute(START, principal=principal, input=wanted))["data"]["startUpload"]
    assert started["errors"] == []
    return dict(started)


async def put(target: dict[str, Any], data: bytes) -> str:
    """Send one part to its signed URL; its ETag."""
    headers = {header["name"]: header["value"] for header in target["headers"]}
    async with httpx.AsyncClient() as client:
        answer = await client.request(target["method"], target["url"], content=data, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


async def complete(execute: Any, principal: Principal, upload_id: str, etags: dict[int, str], **given: Any) -> Any:
    """The payload of `completeUpload`."""
    parts = [{"partNumber": number, "etag": etag} for number, etag in etags.items()]
    answer = await execute(COMPLETE, principal=principal, input={"uploadId": upload_id, "parts": parts, **given})
    return answer["data"]["completeUpload"]


async def upload(execute: Any, principal: Principal, dataset_id: str, data: bytes, **given: Any) -> str:
    """A whole file in one part; the ID of its version, which is PROCESSING."""
    started = await start(execute, principal, dataset_id, len(data), **given)
    etag = await put(started["parts"][0], data)
    completed = await complete(execute, principal, started["upload"]["id"], {1: etag})
    assert completed["errors"] == []
    assert completed["datasetVersion"]["status"] == "PROCESSING"
    id: str = completed["datasetVersion"]["id"]
    return id
