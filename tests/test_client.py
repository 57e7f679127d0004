"""`headai-client` as a script uses it, against real servers, also ones that are killed."""

import asyncio
import json
import logging
import math
import socket
import subprocess
import sys
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import lightgbm as lgb
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import headai_client
from headai_client import lightgbm as lightgbm_client
from headai_client import sklearn as sklearn_client
from headai_client.outbox import Outbox
from headai_client.server import Server
from tests.test_external_runs import RUN
from tests.test_training import CANCEL

CLIENT = Path(headai_client.__file__).parents[1]
RUNS = "{ trainingRuns { nodes { id name status } } }"
POINTS = """
query ($id: ID!) { trainingRun(id: $id) { metrics { series { name } data { columns { step value } } } } }
"""
Look = Callable[[str], Awaitable[dict[str, Any]]]
StartApi = Callable[[], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
def look(execute, scientist) -> Look:
    async def look(id: str) -> dict[str, Any]:
        run = (await execute(RUN, principal=scientist, id=id))["data"]["trainingRun"]
        points = (await execute(POINTS, principal=scientist, id=id))["data"]["trainingRun"]["metrics"]
        run["points"] = {
            one["series"]["name"]: list(
                zip(one["data"]["columns"]["step"], one["data"]["columns"]["value"], strict=True)
            )
            for one in points
        }
        return run

    return look


@pytest.fixture
def options(project, scientist, token_of, tmp_path) -> dict[str, Any]:
    return {"project": project.slug, "token": token_of(scientist), "spool": tmp_path / "spool"}


@pytest.fixture
async def api(settings, services):
    """`await api()`: a process of the API, always at the same `api.url`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headai", "api",
            env=settings.environment() | {"HEADAI_PORT": str(port)}, cwd=CLIENT.parent,
        )  # fmt: skip
        started.append(process)
        async with httpx.AsyncClient(base_url=start.url) as http, asyncio.timeout(90):  # type: ignore[attr-defined]
            while True:
                try:
                    if (await http.get("/healthz")).status_code == 200:
                        return process
                except httpx.TransportError:
                    await asyncio.sleep(0.1)

    start.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(90):
        while not check():  # noqa: ASYNC110  (what is waited for is a file of another thread)
            await asyncio.sleep(0.02)


async def test_what_a_script_logs_arrives_whole(server, options, look):
    async with headai_client.start_run(
        url=server, name="mine", params={"depth": 3, "rate": 0.1, "shape": (2, 3), "odd": math.inf}, **options
    ) as run:
        for step in range(5):
            run.log({"loss": 1 / (step + 1), "auc": step / 10})
        run.log({"loss": math.nan}, step=5)
        run.log({"loss": "high"}, step=6)  # type: ignore[dict-item]
        run.log_line("first\nsecond \x00", level="WARNING")
        run.progress(0.5, "half")

    assert run.id is not None
    seen = await look(run.id)
    assert (seen["status"], seen["progress"]) == ("SUCCEEDED", {"fraction": 1.0, "phase": "finished"})
    assert {p["name"]: p["value"] for p in seen["params"]} == {
        "depth": 3,
        "rate": 0.1,
        "shape": [2, 3],
        "odd": "inf",
    }
    assert seen["points"]["auc"] == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert seen["points"]["loss"] == [(0, 1.0), (1, 1 / 2), (2, 1 / 3), (3, 1 / 4), (4, 1 / 5), (5, None)]
    assert [(line["level"], line["text"]) for line in seen["logs"]["nodes"]] == [
        ("WARNING", "first"),
        ("WARNING", "second \ufffd"),
    ]
    assert not run.folder.exists(), "nothing is left to send"


async def test_a_block_that_raises_leaves_a_failed_run(server, options, look):
    with pytest.raises(ZeroDivisionError):
        async with headai_client.start_run(url=server, **options) as run:
            run.log({"loss": 1 / 0})

    assert run.id is not None
    seen = await look(run.id)
    assert (seen["status"], seen["failure"]["message"]) == ("FAILED", "ZeroDivisionError: division by zero")


async def test_the_server_is_killed_and_nothing_is_lost_or_doubled(api, options, look, caplog):
    process = await api()
    run = headai_client.start_run(url=api.url, **options)
    run.log({"loss": 0.0}, step=0)
    await until(lambda: run.id is not None and not len(Outbox(run.folder)))

    process.kill()
    await process.wait()
    for step in range(1, 300):
        run.log({"loss": float(step)}, step=step)
        run.log_line(f"step {step}")
        if step % 100 == 0:
            waiting = len(Outbox(run.folder))
            await until(lambda waiting=waiting: len(Outbox(run.folder)) > waiting)
    assert "kept in" in caplog.text
    await api()
    assert await run.afinish(timeout=90) is True

    assert run.id is not None
    seen = await look(run.id)
    assert seen["status"] == "SUCCEEDED"
    assert seen["points"]["loss"] == [(step, float(step)) for step in range(300)]
    assert [line["text"] for line in seen["logs"]["nodes"]] == [f"step {step}" for step in range(1, 26)]


async def test_a_run_that_ends_during_an_outage_is_sent_later_and_once(api, options, look, execute, scientist):
    run = headai_client.start_run(url=api.url, name="left", params={"depth": 2}, **options)
    for step in range(20):
        run.log({"loss": float(step)})
    run.log_line("the only line")
    assert await run.afinish(timeout=0.1) is False, "nobody waits longer than asked for"
    await until(lambda: any("SUCCEEDED" in path.read_text() for path in run.folder.glob("0*.json")))
    kept = {path.name: path.read_text() for path in run.folder.glob("0*.json")}

    await api()
    sent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headai_client", "send", "--url", api.url, "--spool", str(options["spool"]),
        env={"PYTHONPATH": str(CLIENT), "HEADAI_TOKEN": options["token"], "PATH": ""},
    )  # fmt: skip
    async with asyncio.timeout(90):
        await sent.wait()
    await until(lambda: not any(run.folder.glob("0*.json")))
    found = (await execute(RUNS, principal=scientist))["data"]["trainingRuns"]["nodes"]
    assert [(one["name"], one["status"]) for one in found] == [("left", "SUCCEEDED")]
    before = await look(found[0]["id"])
    assert before["points"]["loss"] == [(step, float(step)) for step in range(20)]

    folder = options["spool"] / run.folder.name  # as if every answer had been lost: all of it once more
    folder.mkdir(exist_ok=True)
    about = {"url": api.url, "project": options["project"]}
    (folder / "run.json").write_text(json.dumps(about))
    for name, text in kept.items():
        (folder / name).write_text(text)
    again = Outbox(folder)
    server = Server(api.url, token=options["token"])
    await asyncio.to_thread(again.send, server)
    server.close()

    assert len(again) == 0
    assert (await execute(RUNS, principal=scientist))["data"]["trainingRuns"]["nodes"] == found
    assert await look(found[0]["id"]) == before


async def test_a_cancellation_in_head_ai_stops_the_script(server, options, look, execute, scientist, monkeypatch):
    monkeypatch.setattr("headai_client.run.SIGN_OF_LIFE_SECONDS", 0.1)
    X, y = load_breast_cancer(return_X_y=True)
    run = headai_client.start_run(url=server, **options)
    await until(lambda: run.id is not None and not len(Outbox(run.folder)))

    training = asyncio.create_task(
        asyncio.to_thread(
            lgb.train,
            {"objective": "binary", "verbosity": -1, "num_threads": 1},
            lgb.Dataset(X, y),
            num_boost_round=10_000_000,
            callbacks=[lightgbm_client.HeadAICallback(run)],
        )
    )
    canceled = await execute(CANCEL, principal=scientist, input={"id": run.id, "reason": "Enough."})
    assert canceled["data"]["cancelTrainingRun"]["errors"] == []
    async with asyncio.timeout(90):
        await training
    await run.afinish(timeout=90)

    assert run.should_stop
    assert run.id is not None
    seen = await look(run.id)
    assert (seen["status"], seen["statusReason"]) == ("CANCELED", "Enough.")


async def test_lightgbm_reports_what_it_measures(server, options, look):
    X, y = load_breast_cancer(return_X_y=True)
    train = lgb.Dataset(X[:400], y[:400])
    history: dict[str, Any] = {}
    params = {"objective": "binary", "metric": ["auc", "binary_logloss"], "verbosity": -1, "num_threads": 1}

    async with headai_client.start_run(url=server, **options) as run:
        await asyncio.to_thread(
            lgb.train,
            params,
            train,
            num_boost_round=12,
            valid_sets=[train, lgb.Dataset(X[400:], y[400:], reference=train)],
            valid_names=["train", "valid"],
            callbacks=[lightgbm_client.HeadAICallback(run), lgb.record_evaluation(history)],
        )

    assert run.id is not None
    seen = await look(run.id)
    for split in ("train", "valid"):
        for metric in ("auc", "binary_logloss"):
            assert seen["points"][f"{split}.{metric}"] == list(enumerate(history[split][metric]))
    assert {"name": "objective", "value": "binary", "explicit": True} in seen["params"]


async def test_scikit_learn_reports_parameters_and_scores(server, options, look):
    X, y = load_breast_cancer(return_X_y=True)

    async with headai_client.start_run(url=server, **options) as run:
        model = await asyncio.to_thread(
            sklearn_client.fit,
            run,
            LogisticRegression(solver="liblinear", C=0.5),
            X[:400],
            y[:400],
            valid=(X[400:], y[400:]),
        )

    assert run.id is not None
    seen = await look(run.id)
    assert seen["points"]["valid.accuracy"] == [(0, model.score(X[400:], y[400:]))]
    assert {"train.accuracy", "train.f1_macro", "train.neg_log_loss", "valid.f1_macro"} <= seen["points"].keys()
    assert {p["name"]: p["value"] for p in seen["params"]}["C"] == 0.5


async def test_what_the_server_refuses_breaks_nothing_and_is_kept_with_the_reason(server, options, execute, scientist):
    run = headai_client.start_run(url=server, **options | {"project": "nowhere"})
    run.log({"loss": 1.0})

    await run.afinish(timeout=90)

    refused = sorted((run.folder / "refused").glob("*.json"))
    assert "no project 'nowhere'" in json.loads(refused[0].read_text())["reason"]
    assert (await execute(RUNS, principal=scientist))["data"]["trainingRuns"]["nodes"] == []


def test_the_distribution_is_httpx_and_nothing_of_the_server(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=CLIENT, check=True
    )

    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        metadata = content.read("headai_client-0.1.0.dist-info/METADATA").decode()
    assert {name.split("/")[0] for name in names} == {"headai_client", "headai_client-0.1.0.dist-info"}
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert needed == ["Requires-Dist: httpx>=0.27"]
    loads = (
        "import sys; sys.path.insert(0, sys.argv[1]); import headai_client\n"
        "mine = {name.split('.')[0] for name in sys.modules}\n"
        "assert not mine & {'headai', 'schema', 'db', 'domain', 'sqlalchemy', 'strawberry', 'lightgbm', 'numpy'}, mine"
    )
    subprocess.run([sys.executable, "-c", loads, str(wheel)], cwd=tmp_path, check=True)


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.WARNING, logger="headai_client")
