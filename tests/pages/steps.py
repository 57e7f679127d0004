"""What a person does in the explorer: open it, sign in, take a step, run it, read the answer."""

import re

from playwright.async_api import Locator, Page, expect


async def open_explorer(page: Page, url: str) -> None:
    await page.goto(f"{url}/graphql")
    await expect(page.locator(".graphiql-query-editor .view-line").first).to_be_visible()


async def sign_in(page: Page, password: str) -> None:
    await page.get_by_label("Username").fill("admin")
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def open_step(page: Page, operation: str) -> None:
    step = page.locator(".steps button", has=page.get_by_text(operation, exact=True))
    await step.click()
    await expect(step).to_have_class(re.compile("step-active"))


async def run(page: Page) -> None:
    await page.get_by_role("button", name=re.compile("^Execute query")).click()


def response(page: Page) -> Locator:
    return page.locator(".result-window .view-lines")
