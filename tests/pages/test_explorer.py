"""The explorer in a real browser: sign in, run the steps of the main job, watch a subscription."""

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.pages.scripted import PASSWORD, ScriptedApi
from tests.pages.steps import open_explorer, open_step, response, run, sign_in

pytestmark = pytest.mark.page

PROJECT = f"project_{'a' * 32}"
RUN = f"run_{'b' * 32}"


async def signed_in(page: Page, api: ScriptedApi) -> None:
    await open_explorer(page, api.url)
    await sign_in(page, PASSWORD)
    await expect(page.get_by_test_id("signed-in-as")).to_have_text("Ada Admin")


def point(step: int) -> dict[str, Any]:
    columns = {"step": [step], "at": [1_700_000_000_000 + step], "value": [step / 8]}
    series = {"seriesId": f"series_{'c' * 32}", "name": "valid.auc", "runId": RUN, "columns": columns, "labels": []}
    return {"cursor": f"cursor{step}", "kind": "CREATED", "droppedPoints": 0, "series": [series]}


async def test_the_page_is_called_head_ai_and_offers_the_main_job(scripted, page):
    await open_explorer(page, scripted.url)

    await expect(page).to_have_title("Head AI")
    tabs = await page.get_by_role("tab").all_inner_texts()
    assert tabs == [
        "Viewer", "CreateProject", "CreateDataset", "StartUpload", "CompleteUpload", "DatasetVersion",
        "CreateTrainingRun", "MetricPoints", "CreateModel", "CreateModelVersion", "SetModelAlias", "Predict",
    ]  # fmt: skip


async def test_a_wrong_password_is_told_in_the_servers_words(scripted, page):
    await open_explorer(page, scripted.url)
    await sign_in(page, "wrong")

    await expect(page.locator(".bar [role=alert]")).to_have_text("Wrong user name or password.")
    assert await page.evaluate("sessionStorage.getItem('headai.session')") is None


async def test_a_session_lasts_over_a_reload_and_ends_with_sign_out(scripted, page):
    await signed_in(page, scripted)
    await page.reload()
    await expect(page.get_by_test_id("signed-in-as")).to_have_text("Ada Admin")

    await page.get_by_role("button", name="Sign out").click()

    await expect(page.get_by_label("Password")).to_be_visible()
    assert await page.evaluate("sessionStorage.getItem('headai.session')") is None
    assert "logout" in [field for field, _ in scripted.received]
    assert "access" not in await page.evaluate("JSON.stringify({...localStorage})")


async def test_who_is_not_signed_in_is_told_so_and_sends_no_introspection(scripted, page):
    await open_explorer(page, scripted.url)
    await run(page)

    await expect(response(page)).to_contain_text("UNAUTHENTICATED")
    assert scripted.received == []


async def test_the_documentation_is_there_after_signing_in(scripted, page):
    await signed_in(page, scripted)
    await page.get_by_role("button", name="Show Documentation Explorer").click()

    await expect(page.locator(".graphiql-doc-explorer")).to_contain_text("Subscription")


async def test_the_explorer_plugin_shows_the_fields_of_the_operation(scripted, page):
    await signed_in(page, scripted)
    await page.get_by_role("button", name="Show GraphiQL Explorer").click()

    await expect(page.locator(".graphiql-explorer-root")).to_contain_text("trainingRuns")


async def test_a_step_uses_what_the_step_before_has_made(scripted, page):
    scripted.answers["createProject"] = lambda input: {"project": {"id": PROJECT, **input}, "errors": []}
    scripted.answers["createDataset"] = lambda input: {"dataset": None, "errors": []}
    await signed_in(page, scripted)

    await open_step(page, "CreateDataset")
    await run(page)
    await expect(response(page)).to_contain_text("Run CreateProject first")
    assert "createDataset" not in [field for field, _ in scripted.received]

    await open_step(page, "CreateProject")
    await run(page)
    await expect(response(page)).to_contain_text(PROJECT)
    await open_step(page, "CreateDataset")
    await run(page)
    await expect(response(page)).to_contain_text('"createDataset"')
    sent = dict(scripted.received)["createDataset"]
    assert sent == {"input": {"projectId": PROJECT, "name": "breast-cancer"}}


async def test_a_step_without_a_tab_opens_one_with_its_variables(scripted, page):
    await signed_in(page, scripted)
    await open_step(page, "ValidateTrainingRun")

    await expect(page.get_by_role("tab", selected=True)).to_contain_text("ValidateTrainingRun")
    await expect(page.locator(".graphiql-editor-tool .view-lines").first).to_contain_text("$datasetversion")


async def test_a_subscription_goes_on_until_it_is_stopped(scripted, page):
    await signed_in(page, scripted)
    await page.evaluate("run => sessionStorage.setItem('headai.made', JSON.stringify({run}))", RUN)
    await page.reload()
    await open_step(page, "MetricPoints")
    await run(page)
    for step in range(3):
        scripted.items.put_nowait(point(step))
        await expect(response(page)).to_contain_text(f"cursor{step}")
    fields = [(field, sent) for field, sent in scripted.received if field == "metricPoints"]
    assert fields == [
        (
            "metricPoints",
            {"selector": {"scope": "RUN", "names": ["valid.*"], "runIds": [RUN]}, "maxUpdatesPerSecond": 2},
        )
    ]

    await page.get_by_role("button", name=re.compile("^Stop query")).click()

    await expect(page.get_by_role("button", name=re.compile("^Execute query"))).to_be_visible()
    assert scripted.sockets == 1


async def test_a_subscription_does_not_run_on_into_another_step(scripted, page):
    await signed_in(page, scripted)
    await page.evaluate("run => sessionStorage.setItem('headai.made', JSON.stringify({run}))", RUN)
    await page.reload()
    await open_step(page, "MetricPoints")
    await run(page)
    scripted.items.put_nowait(point(1))
    await expect(response(page)).to_contain_text("cursor1")

    await open_step(page, "TrainingRunUpdated")

    await expect(page.get_by_role("button", name=re.compile("^Execute query"))).to_be_visible()
    await expect(response(page)).to_have_text("")


async def test_a_subscription_outlives_the_token_it_began_with(scripted, page):
    """The server closes a socket with 4403 when its token ends; the page comes back with the new one."""
    await signed_in(page, scripted)
    await page.evaluate("run => sessionStorage.setItem('headai.made', JSON.stringify({run}))", RUN)
    await page.reload()
    await open_step(page, "MetricPoints")
    await run(page)
    scripted.items.put_nowait(point(1))
    await expect(response(page)).to_contain_text("cursor1")

    await scripted.close_sockets(4403)
    scripted.items.put_nowait(point(2))

    await expect(response(page)).to_contain_text("cursor2")
    assert scripted.sockets == 2


async def test_a_new_token_is_handed_to_the_open_socket(scripted, page):
    scripted.lifetime = timedelta(seconds=6)
    await signed_in(page, scripted)
    await page.evaluate("run => sessionStorage.setItem('headai.made', JSON.stringify({run}))", RUN)
    await page.reload()
    await open_step(page, "MetricPoints")
    await run(page)
    scripted.items.put_nowait(point(1))
    await expect(response(page)).to_contain_text("cursor1")

    async with asyncio.timeout(20):
        await scripted.renewed_on_the_socket.wait()
    scripted.items.put_nowait(point(2))

    await expect(response(page)).to_contain_text("cursor2")
    assert scripted.sockets == 1


async def test_tokens_are_renewed_before_they_end(scripted, page):
    scripted.lifetime = timedelta(seconds=6)
    await signed_in(page, scripted)
    first = json.loads(await page.evaluate("sessionStorage.getItem('headai.session')"))

    await page.wait_for_function(
        "first => JSON.parse(sessionStorage.getItem('headai.session')).accessToken !== first", arg=first["accessToken"]
    )

    assert scripted.refreshes >= 1
    await expect(page.get_by_test_id("signed-in-as")).to_have_text("Ada Admin")


async def test_who_may_not_renew_is_signed_out_and_told_why(scripted, page):
    scripted.answers["viewer"] = lambda: {"user": None, "permissions": [], "projects": None}
    await signed_in(page, scripted)
    scripted.refusing = True
    scripted._access.clear()
    await run(page)

    await expect(page.locator(".bar [role=alert]")).to_have_text("Your session has ended: The session was revoked.")
    await expect(page.get_by_label("Password")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_can_be_read_in_light_and_in_dark(scripted, page, scheme):
    await page.emulate_media(color_scheme=scheme)
    await signed_in(page, scripted)

    paper, ink = await page.evaluate(
        """() => {
             const style = (selector) => getComputedStyle(document.querySelector(selector));
             const numbers = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
             return [numbers(style("body").backgroundColor), numbers(style(".bar").color)];
           }"""
    )
    assert contrast(paper, ink) >= 4.5
    assert (sum(paper) < 384) == (scheme == "dark")


def contrast(one: list[float], other: list[float]) -> float:
    """The contrast ratio of WCAG 2.2, 1 to 21."""

    def luminance(colour: list[float]) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
