"""The main job by hand in the explorer, on the real server and worker: sign in, upload, train, watch, predict."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, Response, expect

from headai.administration import ensure_administrator
from headai.demo import _breast_cancer
from tests.pages.steps import open_explorer, open_step, response, run, sign_in

pytestmark = pytest.mark.page

PASSWORD = "correct horse battery"


async def set_variables(page: Page, variables: dict[str, Any]) -> None:
    """Type them in place of what is there; the editor closes brackets by itself, so what follows is taken away."""
    await page.locator(".graphiql-editor-tool .monaco-editor").first.click()
    await page.keyboard.press("Control+A")
    await page.keyboard.insert_text(json.dumps(variables))
    await page.keyboard.press("Control+Shift+End")
    await page.keyboard.press("Delete")


async def do(page: Page, operation: str, variables: dict[str, Any] | None = None) -> Any:
    """Open the step, run it as it is (or with other variables); the value of its root field."""
    await open_step(page, operation)
    if variables is not None:
        await set_variables(page, variables)

    def is_its_answer(answer: Response) -> bool:
        return f'"operationName":"{operation}"' in (answer.request.post_data or "")

    async with page.expect_response(is_its_answer) as answer:
        await run(page)
    body = await (await answer.value).json()
    assert "errors" not in body, body["errors"]
    value = next(iter(body["data"].values()))
    assert not (isinstance(value, dict) and value.get("errors")), value["errors"]
    return value


async def test_the_main_job_by_hand(server: str, worker: None, settings: Any, page: Page, tmp_path: Path) -> None:
    await ensure_administrator(settings, PASSWORD)
    data = _breast_cancer(tmp_path).path.read_bytes()

    await open_explorer(page, server)
    await sign_in(page, PASSWORD)
    await expect(page.get_by_test_id("signed-in-as")).to_be_visible()
    assert (await do(page, "Viewer"))["user"]["username"] == "admin"

    project = (await do(page, "CreateProject"))["project"]
    dataset = (await do(page, "CreateDataset"))["dataset"]
    assert dataset["project"]["id"] == project["id"]

    wanted = {"datasetId": "$dataset", "fileName": "breast_cancer.csv", "sizeBytes": len(data), "format": "CSV"}
    (part,) = (await do(page, "StartUpload", {"input": wanted}))["parts"]
    async with httpx.AsyncClient() as store:
        headers = {header["name"]: header["value"] for header in part["headers"]}
        sent = await store.request(part["method"], part["url"], content=data, headers=headers)
    assert sent.status_code == 200
    parts = [{"partNumber": 1, "etag": sent.headers["etag"]}]
    await do(page, "CompleteUpload", {"input": {"uploadId": "$upload", "parts": parts}})

    await open_step(page, "DatasetVersionUpdated")
    await run(page)
    await expect(response(page)).to_contain_text('"READY"', timeout=30_000)
    version = await do(page, "DatasetVersion")
    assert (version["rowCount"], version["columnCount"]) == ("569", 31)
    (preview,) = [(await do(page, "DatasetPreview"))["preview"]]
    assert len(preview["rows"]) == 10

    assert (await do(page, "ValidateTrainingRun"))["valid"] is True
    training = (await do(page, "CreateTrainingRun"))["trainingRun"]
    await open_step(page, "MetricPoints")
    await run(page)
    await expect(response(page)).to_contain_text('"valid.', timeout=30_000)
    await open_step(page, "TrainingRunUpdated")
    await run(page)
    await expect(response(page)).to_contain_text('"SUCCEEDED"', timeout=60_000)
    await open_step(page, "TrainingRunLogs")
    await run(page)
    await expect(response(page)).to_contain_text('"lines"', timeout=30_000)
    finished = await do(page, "TrainingRun")
    assert finished["id"] == training["id"]
    assert {entry["name"] for entry in finished["summary"]} >= {"valid.auc", "valid.binary_logloss"}
    groups = (await do(page, "MetricQuery"))["groups"]
    assert {group["name"] for group in groups} == {"valid.auc", "valid.binary_logloss"}

    model = (await do(page, "CreateModel"))["model"]
    registered = (await do(page, "CreateModelVersion"))["modelVersion"]
    promoted = await do(page, "SetModelAlias")
    assert promoted["change"]["to"]["id"] == registered["id"]
    shown = await do(page, "ModelVersion")
    assert (shown["model"]["id"], shown["aliases"]) == (model["id"], ["champion"])
    assert [entry["rank"] for entry in shown["featureImportance"]] == [1, 2, 3, 4]
    outputs = (await do(page, "Predict"))["prediction"]["outputs"]
    assert [output["value"] for output in outputs] == ["malignant", "benign"]
    for output in outputs:
        assert sum(entry["probability"] for entry in output["probabilities"]) == pytest.approx(1)
        assert {entry["feature"] for entry in output["contributions"]} >= {"<base>", "worst radius"}
