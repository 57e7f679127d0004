"""What the demo makes of a file and of the API's errors, before and beside the server."""

import io
from pathlib import Path

import polars as pl
import pytest
import sklearn.datasets
from rich.console import Console

from headai.administration import ensure_administrator
from headai.client import Api, ApiTrouble, is_loopback, trouble
from headai.demo import Watched, _breast_cancer, guess_task, run_demo

PASSWORD = "correct horse battery"


def column(type: str, distinct: int) -> dict:
    return {"name": "y", "type": type, "profile": {"distinctCount": str(distinct)}}


@pytest.mark.parametrize(
    ("type", "distinct", "task", "reason"),
    [
        ("STRING", 2, "BINARY_CLASSIFICATION", "two values"),
        ("BOOLEAN", 2, "BINARY_CLASSIFICATION", "two values"),
        ("FLOAT", 2, "BINARY_CLASSIFICATION", "two values"),
        ("STRING", 3, "MULTICLASS_CLASSIFICATION", "3 classes"),
        ("INTEGER", 20, "MULTICLASS_CLASSIFICATION", "20 whole numbers as values"),
        ("INTEGER", 21, "REGRESSION", "numbers, 21 different ones"),
        ("FLOAT", 3, "REGRESSION", "numbers, 3 different ones"),
        ("DECIMAL", 1234, "REGRESSION", "numbers, 1,234 different ones"),
    ],
)
def test_the_task_is_guessed_from_the_profile_of_the_target(type, distinct, task, reason):
    assert guess_task(column(type, distinct)) == (task, reason)


def test_a_constant_target_is_refused():
    with pytest.raises(ApiTrouble, match="'y' has one value only: there is nothing to predict"):
        guess_task(column("INTEGER", 1))


def test_the_demo_brings_569_tumours_with_their_diagnosis(tmp_path):
    source = _breast_cancer(tmp_path)

    data = pl.read_csv(source.path)
    assert data.shape == (569, 31)
    assert data["diagnosis"].value_counts().sort("count").rows() == [("malignant", 212), ("benign", 357)]
    assert data["mean radius"][0] == 17.99
    assert source.target == "diagnosis"


def batch(*points: tuple[str, int, float | None]) -> dict:
    return {
        "series": [
            {"name": name, "columns": {"step": [step], "at": [0], "value": [value]}} for name, step, value in points
        ]
    }


def test_a_resumed_attempt_replaces_the_points_it_trains_again():
    watched = Watched("auc")
    watched.add(batch(("valid.auc", 0, 0.5), ("valid.auc", 1, 0.6), ("train.auc", 1, 0.7), ("valid.auc", 2, None)))
    watched.add(batch(("valid.auc", 1, 0.65)))

    assert watched.points == {"valid.auc": {0: 0.5, 1: 0.65}, "train.auc": {1: 0.7}}
    assert watched.rounds == 2
    assert watched.line() == "  queued, round 2: train.auc 0.7, valid.auc 0.65"


def test_the_picture_of_a_run_that_waits_says_so():
    console = Console(file=io.StringIO(), width=80)
    console.print(Watched("auc").picture(80))
    assert "waiting for the first round" in console.file.getvalue()


def test_errors_of_a_payload_are_told_with_place_and_choice():
    told = trouble(
        [
            {
                "code": "INVALID",
                "message": "LightGBM has no parameter 'leaves'.",
                "path": ["input", "spec", "params", "leaves"],
                "allowed": ["num_leaves", "max_depth"],
            },
            {"code": "ACCOUNT_LOCKED", "message": "Too many wrong passwords.", "path": None, "retryAfter": "PT15M"},
        ]
    )

    assert str(told) == (
        "LightGBM has no parameter 'leaves'. (input.spec.params.leaves) Accepted: num_leaves, max_depth.\n"
        "Too many wrong passwords. Try again after PT15M."
    )
    assert told.codes == {"INVALID", "ACCOUNT_LOCKED"}


def test_errors_above_the_data_come_with_advice():
    told = trouble([{"message": "You may not.", "path": ["createProject"], "extensions": {"code": "FORBIDDEN"}}])

    assert str(told) == "You may not.\nAsk an administrator for a role that holds this permission."


@pytest.mark.parametrize(
    ("url", "local"),
    [("http://127.0.0.1:8000", True), ("http://[::1]:8000", True), ("https://headai.example", False)],
)
def test_no_proxy_stands_between_us_and_this_machine(url, local):
    assert is_loopback(url) is local


async def test_an_address_that_is_none_is_told():
    with pytest.raises(ApiTrouble, match=r"reads like http://127\.0\.0\.1:8000"):
        async with Api.at("headai.example"):
            pass


async def demo_output(**given) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    status = await run_demo(username="admin", password="nothing", console=console, **given)
    return status, " ".join(console.file.getvalue().split())


async def test_a_server_that_is_not_there_is_told_with_what_to_do():
    status, output = await demo_output(url="http://127.0.0.1:9")

    assert status == 1
    assert "The server at http://127.0.0.1:9 does not answer" in output
    assert "`make up` starts it" in output


def file_with(content: bytes | None, path: Path) -> Path:
    if content is not None:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "target", "told"),
    [
        ("missing.csv", None, "y", "There is no file"),
        ("data.xlsx", b"PK", "y", "neither a .csv nor a .parquet file"),
        ("empty.csv", b"", "y", "is empty"),
        ("data.csv", b"a,y\n1,2\n", None, "Name it with `--target`"),
    ],
)
async def test_a_file_that_cannot_be_used_is_told_before_anything_is_sent(tmp_path, name, content, target, told):
    path = file_with(content, tmp_path / name)

    status, output = await demo_output(url="http://127.0.0.1:9", data=path, target=target)

    assert status == 1
    assert told in output


@pytest.mark.slow
async def test_the_demo_does_the_main_job_on_the_real_server(server, worker, settings):
    await ensure_administrator(settings, PASSWORD)
    console = Console(file=io.StringIO(), width=200)

    status = await run_demo(url=server, username="admin", password=PASSWORD, console=console)

    output = console.file.getvalue()
    assert status == 0, output
    assert "569 rows, 31 columns" in output
    assert "diagnosis has two values: binary classification" in output
    assert "succeeded, round" in output
    assert "Model breast-cancer version 1 is the champion" in output
    assert "Predicted 5 rows" in output
    assert f"explorer  {server}/graphql" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("iris", "target", "3 whole numbers as values: multiclass"),
        ("diabetes", "target", "numbers, 214 different ones"),
    ],
)
async def test_the_demo_takes_the_users_own_parquet(server, worker, settings, tmp_path, name, target, told):
    await ensure_administrator(settings, PASSWORD)
    data = getattr(sklearn.datasets, f"load_{name}")()
    columns = dict(zip(data.feature_names, data.data.T, strict=True)) | {target: data.target}
    pl.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
    console = Console(file=io.StringIO(), width=200)

    status = await run_demo(
        url=server,
        username="admin",
        password=PASSWORD,
        data=tmp_path / f"{name}.parquet",
        target=target,
        console=console,
    )

    output = console.file.getvalue()
    assert status == 0, output
    assert told in output
    assert "Predicted 5 rows" in output
