"""The main job through the public API, with a watch in the hand: upload, train, follow, register, predict."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import polars as pl
from rich.console import Console
from sqlalchemy import bindparam, select

from benchmarks.alone import digest
from benchmarks.data import FEATURES, LABEL, TARGET, feature_names, write_mixed, write_numeric
from benchmarks.load import Connection, WrongAnswer, post_graphql, quantile
from benchmarks.machine import family, memory_mb, wait_until_idle
from benchmarks.report import Figure
from benchmarks.stack import Running
from db.database import Database
from db.ids import Kind, key_of
from db.tables import artifacts, dataset_versions, training_runs
from headai.administration import FIRST
from headai.client import Api
from storage.objects import ObjectStore

_FINAL = {"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELED"}
_SMALL_CSV_BYTES = 1_000_000
_UPLOADS = 5
_SHORT_RUNS = 5
_UPDATES_PER_SECOND = 10
_PREDICT = """
mutation Predict($input: PredictInput!) {
  predict(input: $input) {
    prediction { outputs { value probabilities { label probability } } }
    errors { message path }
  }
}"""


_BATCH = """
mutation Batch($input: CreateBatchPredictionInput!) {
  createBatchPrediction(input: $input) { batchPrediction { id } errors { message path } }
}"""
_OPERATION = """
query Operation($id: ID!) {
  operation(id: $id) { status failure { message } ... on BatchPrediction { output { id } } }
}"""
_BATCH_ROUNDS = 100
_BATCH_PAIRS = 3
_LOOK_AGAIN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Size:
    """How large the long run and the models that predict are."""

    run_seconds: float
    run_rows: int
    pairs: int
    model_rounds: int
    calls: int
    batch_rows: int


_PROBED_ROUNDS = 100
"""Of so many the speed is taken from: the first rounds are slower than the others."""
FULL = Size(run_seconds=60, run_rows=100_000, pairs=2, model_rounds=500, calls=100, batch_rows=500_000)
QUICK = Size(run_seconds=8, run_rows=50_000, pairs=1, model_rounds=500, calls=20, batch_rows=100_000)


@dataclass(slots=True)
class Watched:
    """What a subscriber saw of a run; times are Unix time in seconds, `delays` are those of each round."""

    created: float = 0.0
    first_point: float = 0.0
    ended: float = 0.0
    status: str = ""
    delays: list[float] = field(default_factory=list)


class RunFailed(Exception):
    """A run of the benchmark did not succeed."""


async def idle_memory(head_ai: Running, *, when: str) -> list[Figure]:
    """What API and worker hold, children included, while nothing happens."""
    await wait_until_idle()
    figures = []
    for name, pid, target in (("API", head_ai.api, 200.0), ("worker", head_ai.worker, 250.0)):
        pids = family(pid)
        proportional, resident = memory_mb(pids)
        figures.append(
            Figure(
                name=f"idle memory of the {name}, {when}",
                value=proportional,
                unit="MB",
                target=target,
                detail=f"proportional set size of {len(pids)} processes; resident sets add up to {resident:.0f} MB",
            )
        )
    return figures


async def measure(head_ai: Running, *, size: Size, console: Console) -> AsyncGenerator[Figure, None]:
    """The figures of the main job, as they come. Raises `RunFailed`, `WrongAnswer` or `headai.client.ApiTrouble`."""
    async with _bench(head_ai, console) as bench:
        for part in (bench.uploads, bench.first_points, bench.predictions, bench.batch, bench.long_run):
            for figure in await part(size):
                yield figure


@asynccontextmanager
async def _bench(head_ai: Running, console: Console) -> AsyncIterator["_Bench"]:
    with tempfile.TemporaryDirectory(prefix="headai-bench-data-") as folder:
        async with (
            Api.at(head_ai.url) as api,
            Database(head_ai.settings.database_url) as db,
            ObjectStore.open(head_ai.settings.store()) as store,
        ):
            await api.sign_in(FIRST, head_ai.password)
            made = await api.send("CreateProject", {"input": {"slug": "benchmark", "name": "Benchmark"}})
            yield _Bench(head_ai, api, db, store, Path(folder), made["project"]["id"], console)


class _Bench:
    def __init__(
        self,
        head_ai: Running,
        api: Api,
        db: Database,
        store: ObjectStore,
        folder: Path,
        project_id: str,
        console: Console,
    ) -> None:
        self._head_ai = head_ai
        self._api = api
        self._db = db
        self._store = store
        self._folder = folder
        self._project_id = project_id
        self._console = console
        self._small_version = ""

    # Uploading

    async def uploads(self, size: Size) -> list[Figure]:
        dataset_id = await self._dataset("small")
        seconds = []
        for number in range(_UPLOADS):
            path = self._folder / f"small-{number}.csv"
            rows = write_mixed(path, size_bytes=_SMALL_CSV_BYTES, seed=number)
            await wait_until_idle(5)
            self._small_version, taken = await self._upload(dataset_id, path)
            seconds.append(taken)
        self._say(f"1 MB CSV ready after {_list(seconds)} s")
        return [
            Figure(
                name="completeUpload → READY, CSV of 1 MB",
                value=max(seconds),
                unit="s",
                target=2.0,
                detail=f"the slowest of {len(seconds)}, the first after the start among them; "
                f"median {median(seconds):.2f} s; {rows:,} rows × 8 columns",
            )
        ]

    async def _dataset(self, name: str) -> str:
        made = await self._api.send("CreateDataset", {"input": {"projectId": self._project_id, "name": name}})
        return str(made["dataset"]["id"])

    async def _upload(self, dataset_id: str, path: Path) -> tuple[str, float]:
        """The ID of the version, and the seconds from completeUpload until a subscriber saw READY."""
        size = path.stat().st_size  # noqa: ASYNC240
        asked = {"datasetId": dataset_id, "fileName": path.name, "sizeBytes": size, "format": "CSV"}
        started = await self._api.send("StartUpload", {"input": asked})
        upload, parts = started["upload"], []
        targets = {part["partNumber"]: part for part in started["parts"]}
        with path.open("rb") as file:
            for number in range(1, upload["partCount"] + 1):
                content = file.read(int(upload["partSizeBytes"]))
                etag = await self._api.put(targets[number], content, size=len(content))
                parts.append({"partNumber": number, "etag": etag})
        version_id = str(upload["version"]["id"])
        following = self._api.follow("DatasetVersionUpdated", {"id": version_id})
        async with aclosing(following):
            await anext(following)
            began = time.perf_counter()
            completing = asyncio.create_task(
                self._api.send("CompleteUpload", {"input": {"uploadId": upload["id"], "parts": parts}})
            )
            async for update in following:
                if update["datasetVersion"]["status"] == "FAILED":
                    raise RunFailed(str(update["datasetVersion"]["failure"]))
                if update["datasetVersion"]["status"] == "READY":
                    break
            taken = time.perf_counter() - began
            await completing
        return version_id, taken

    # Training

    async def first_points(self, size: Size) -> list[Figure]:
        spec = {"task": "BINARY_CLASSIFICATION", "target": LABEL, "numRounds": 300, "earlyStoppingRounds": None}
        seen = []
        for _ in range(_SHORT_RUNS):
            await wait_until_idle(5)
            _, watched = await self._run(self._small_version, spec)
            seen.append(watched)
        firsts = [watched.first_point - watched.created for watched in seen]
        delays = [delay for watched in seen for delay in watched.delays]
        self._say(f"first metric points after {_list(firsts)} s")
        return [
            Figure(
                name="createTrainingRun → first metric point at a subscriber",
                value=max(firsts),
                unit="s",
                target=2.0,
                detail=f"the slowest of {len(firsts)}; median {median(firsts):.2f} s; on the CSV of 1 MB",
            ),
            _delay("round end → its points at a subscriber, many short rounds", delays),
        ]

    async def long_run(self, size: Size) -> list[Figure]:
        """Pairs of LightGBM alone and the same training as a run, one after the other."""
        path = self._folder / "long.csv"
        write_numeric(path, rows=size.run_rows, seed=1)
        version_id, taken = await self._upload(await self._dataset("long"), path)
        self._say(f"{path.stat().st_size / 1e6:.0f} MB CSV ready after {taken:.1f} s")
        parquet = self._folder / "long.parquet"
        await self._fetch_data(version_id, parquet)
        spec: dict[str, Any] = {
            "task": "REGRESSION",
            "target": TARGET,
            "features": feature_names(),
            "params": {"num_leaves": 63, "learning_rate": 0.05},
            "earlyStoppingRounds": None,
        }
        probe_id, _ = await self._run(version_id, spec | {"numRounds": _PROBED_ROUNDS})
        asked = {"what": "train", "data": str(parquet), "threads": os.cpu_count()}
        probe = await _alone(asked | {"spec": await self._spec(probe_id)})
        rounds = max(20, round(size.run_seconds / probe["seconds"] * _PROBED_ROUNDS))
        spec |= {"numRounds": rounds}
        alone, runs = [], []
        for pair in range(size.pairs):
            await wait_until_idle()
            if pair == 0:
                given = await self._spec(probe_id) | {"num_rounds": rounds}
            alone.append(await _alone(asked | {"spec": given}))
            await wait_until_idle()
            run_id, watched = await self._run(version_id, spec)
            runs.append(watched)
            await self._same_model(run_id, alone[-1]["trees"])
            self._say(
                f"{rounds} rounds: alone {alone[-1]['seconds']:.1f} s, as a run {watched.ended - watched.created:.1f} s"
            )
        walls = [watched.ended - watched.created for watched in runs]
        ratios = [wall / one["seconds"] for wall, one in zip(walls, alone, strict=True)]
        return [
            Figure(
                name="training as a run over lightgbm.train alone, wall time",
                value=median(ratios),
                unit="×",
                target=1.10,
                detail=f"createTrainingRun → SUCCEEDED at a subscriber ({_list(walls)} s) over lightgbm.train in a "
                f"process of its own ({_list([one['seconds'] for one in alone])} s), {os.cpu_count()} threads each; "
                f"{size.run_rows:,} rows × {FEATURES} features, {rounds} rounds of 63 leaves; the same model",
            ),
            _delay(
                "round end → its points at a subscriber, long run",
                [delay for watched in runs for delay in watched.delays],
            ),
        ]

    async def _run(self, version_id: str, spec: Mapping[str, Any]) -> tuple[str, Watched]:
        """Train, with one subscriber on the points and one on the state; the run's ID and what they saw."""
        watched = Watched(created=time.time())
        given = {"projectId": self._project_id, "datasetVersionId": version_id, "spec": spec}
        made = await self._api.send("CreateTrainingRun", {"input": given})
        run_id: str = made["trainingRun"]["id"]
        points = asyncio.create_task(self._watch_points(run_id, watched))
        try:
            async with aclosing(self._api.follow("TrainingRunUpdated", {"id": run_id})) as updates:
                async for update in updates:
                    watched.status = update["trainingRun"]["status"]
                    if watched.status in _FINAL:
                        watched.ended = time.time()
                        break
            if watched.status != "SUCCEEDED":
                raise RunFailed(f"{watched.status}: {update['trainingRun']['failure']}")
            await asyncio.sleep(0.5)
        finally:
            points.cancel()
            await asyncio.gather(points, return_exceptions=True)
        if not watched.delays:
            raise RunFailed("The run succeeded, and no point of it arrived.")
        return run_id, watched

    async def _watch_points(self, run_id: str, watched: Watched) -> None:
        """Note the first point and, of every round, how long after its end its last point arrived."""
        selector = {"scope": "RUN", "names": ["*"], "runIds": [run_id]}
        asked = {"selector": selector, "maxUpdatesPerSecond": _UPDATES_PER_SECOND}
        async with aclosing(self._api.follow("MetricPoints", asked)) as batches:
            async for batch in batches:
                now = time.time()
                ends: dict[int, int] = {}
                for series in batch["series"]:
                    columns = series["columns"]
                    ends.update(zip(columns["step"], columns["at"], strict=True))
                if ends and not watched.first_point:
                    watched.first_point = now
                watched.delays += [now - at / 1000 for at in ends.values()]

    # Predicting

    async def predictions(self, size: Size) -> list[Figure]:
        path = self._folder / "models.csv"
        write_numeric(path, rows=20_000, seed=3)
        version_id, _ = await self._upload(await self._dataset("models"), path)
        large = {"params": {"num_leaves": 63, "learning_rate": 0.05}, "numRounds": size.model_rounds}
        small = {"params": {"num_leaves": 15}, "numRounds": 30}
        regression, classes = ("REGRESSION", TARGET), ("BINARY_CLASSIFICATION", LABEL)
        figures = []
        for (task, target), shape, has_target in (
            (regression, large, True),
            (classes, large, False),
            (regression, small, False),
        ):
            spec = shape | {"task": task, "target": target, "features": feature_names(), "earlyStoppingRounds": None}
            run_id, _ = await self._run(version_id, spec)
            figures += await self._predicted(run_id, task, spec, size, has_target=has_target)
        return figures

    async def _predicted(
        self, run_id: str, task: str, spec: Mapping[str, Any], size: Size, *, has_target: bool
    ) -> list[Figure]:
        named = f"model {run_id[-8:]}"
        made = await self._api.send(
            "CreateModel", {"input": {"projectId": self._project_id, "name": named, "task": task}}
        )
        source = {"modelId": made["model"]["id"], "from": {"runId": run_id}}
        version = (await self._api.send("CreateModelVersion", {"input": source}))["modelVersion"]
        model = self._folder / f"{run_id}.txt"
        await self._fetch_model(run_id, model)
        shown = f"{'classes with probabilities' if task != 'REGRESSION' else 'regression'}, {spec['numRounds']} rounds "
        shown += f"of {spec['params']['num_leaves']} leaves, {FEATURES} features"
        figures = []
        for count, target, calls in ((1, 30.0, size.calls * 2), (1000, 3.0, size.calls // 4)):
            batches = [_rows(count, seed=number) for number in range(calls)]
            alone: list[float] = []
            through: list[float] = []
            for _ in range(2):
                values = [[list(row.values()) for row in rows] for rows in batches]
                one = await _alone({"what": "predict", "model": str(model), "batches": values})
                alone += one["seconds"]
                await wait_until_idle(5)
                through += await self._timed(version["id"], batches, one["values"], task=task)
            ratio = median(through) / median(alone)
            self._say(f"{count} rows, {shown}: {ratio:.1f}×")
            figures.append(
                Figure(
                    name=f"predict of {count:,} row{'s' if count > 1 else ''} over Booster.predict alone, p50, {shown}",
                    value=ratio,
                    unit="×",
                    target=target if has_target else None,
                    detail=f"{median(through) * 1e3:.2f} ms (p99 {quantile(through, 0.99) * 1e3:.2f} ms) over "
                    f"{median(alone) * 1e3:.3f} ms on {one['threads']}; {len(through)} calls, no two alike",
                )
            )
        return figures

    async def batch(self, size: Size) -> list[Figure]:
        """Pairs of a script that predicts a file and a batch prediction of the same rows, one after the other."""
        path = self._folder / "batch.csv"
        write_numeric(path, rows=size.batch_rows, seed=5)
        version_id, _ = await self._upload(await self._dataset("batch"), path)
        parquet = self._folder / "batch.parquet"
        await self._fetch_data(version_id, parquet)
        spec = {"task": "REGRESSION", "target": TARGET, "features": feature_names(), "params": {"num_leaves": 63}}
        run_id, _ = await self._run(version_id, spec | {"numRounds": _BATCH_ROUNDS, "earlyStoppingRounds": None})
        named = {"projectId": self._project_id, "name": "batch", "task": "REGRESSION"}
        made = await self._api.send("CreateModel", {"input": named})
        source = {"modelId": made["model"]["id"], "from": {"runId": run_id}}
        version = (await self._api.send("CreateModelVersion", {"input": source}))["modelVersion"]
        model = self._folder / "batch.txt"
        await self._fetch_model(run_id, model)
        output_id = await self._dataset("batch predictions")
        asked = {"what": "predict_file", "model": str(model), "data": str(parquet), "features": feature_names()}
        asked |= {"threads": os.cpu_count(), "output": str(self._folder / "alone.parquet")}
        alone, through = [], []
        for _ in range(_BATCH_PAIRS):
            await wait_until_idle(5)
            one = await _alone(asked)
            alone.append(one["seconds"])
            await wait_until_idle(5)
            given = {"model": {"id": version["id"]}, "inputVersionId": version_id, "outputDatasetId": output_id}
            predicted_id, seconds = await self._predict_batch(given)
            through.append(seconds)
            predicted = self._folder / "predicted.parquet"
            await self._fetch_data(predicted_id, predicted)
            values = pl.read_parquet(predicted, columns=["prediction"])["prediction"].to_numpy()
            if sha256(values.tobytes()).hexdigest() != one["predictions"]:
                raise WrongAnswer("A batch prediction and Booster.predict say different things of the same rows.")
            self._say(f"{size.batch_rows:,} rows: alone {alone[-1]:.1f} s, as a batch prediction {through[-1]:.1f} s")
        return [
            Figure(
                name="rows a second of a batch prediction, those of polars + Booster.predict over them",
                value=median(one / other for one, other in zip(through, alone, strict=True)),
                unit="×",
                target=1.25,
                detail=f"createBatchPrediction → SUCCEEDED ({_list(through)} s) over a script in a process of its own "
                f"({_list(alone)} s), {os.cpu_count()} threads each; {size.batch_rows:,} rows × {FEATURES} features, "
                f"{_BATCH_ROUNDS} rounds of 63 leaves; the same predictions",
            )
        ]

    async def _predict_batch(self, given: Mapping[str, Any]) -> tuple[str, float]:
        """The dataset version that a batch prediction made, and the seconds from asking to SUCCEEDED."""
        port, token = self._head_ai.settings.port, await self._head_ai.token()
        connection = await Connection.open(port)

        async def ask(document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
            body = orjson.dumps({"query": document, "variables": variables})
            answer: dict[str, Any] = orjson.loads(await connection.ask(post_graphql(port, body, token).request))["data"]
            return answer

        try:
            began = time.perf_counter()
            made = (await ask(_BATCH, {"input": given}))["createBatchPrediction"]
            if made["errors"]:
                raise WrongAnswer(str(made["errors"]))
            while True:
                found = (await ask(_OPERATION, {"id": made["batchPrediction"]["id"]}))["operation"]
                if found["status"] in _FINAL:
                    break
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            if found["status"] != "SUCCEEDED":
                raise RunFailed(f"{found['status']}: {found['failure']}")
            return str(found["output"]["id"]), time.perf_counter() - began
        finally:
            connection.close()

    async def _timed(
        self,
        version_id: str,
        batches: Sequence[Sequence[Mapping[str, float]]],
        values: Sequence[Sequence[float]],
        *,
        task: str,
    ) -> list[float]:
        """The seconds of each call through the API, whose answers are those of `Booster.predict`."""
        classes, port, token = task != "REGRESSION", self._head_ai.settings.port, await self._head_ai.token()
        given = {"model": {"id": version_id}, "includeProbabilities": classes}
        bodies = [orjson.dumps({"query": _PREDICT, "variables": {"input": given | {"rows": rows}}}) for rows in batches]
        connection = await Connection.open(port)
        try:
            for body in bodies[:3]:
                await connection.ask(post_graphql(port, body, token).request)
            seconds = []
            for body, expected in zip(bodies, values, strict=True):
                request = post_graphql(port, body, token).request
                began = time.perf_counter()
                answer = await connection.ask(request)
                seconds.append(time.perf_counter() - began)
                _check(answer, expected, classes)
            return seconds
        finally:
            connection.close()

    # What the API does not need to tell, and a fair comparison does

    async def _spec(self, run_id: str) -> dict[str, Any]:
        """The spec of a run with everything that was left out filled in, as the child process is given it."""
        statement = select(training_runs.c.spec).where(training_runs.c.id == bindparam("id"))
        async with self._db.reading() as session:
            spec: dict[str, Any] = await session.scalar(statement, id=_key(run_id, Kind.RUN))
        return spec

    async def _fetch_data(self, version_id: str, path: Path) -> None:
        statement = select(dataset_versions.c.data_key).where(dataset_versions.c.id == bindparam("id"))
        async with self._db.reading() as session:
            key = await session.scalar(statement, id=_key(version_id, Kind.DATASET_VERSION))
        await self._store.download_file(key, path)

    async def _fetch_model(self, run_id: str, path: Path) -> None:
        statement = select(artifacts.c.object_key).where(
            artifacts.c.run_id == bindparam("id"), artifacts.c.path == "model.txt"
        )
        async with self._db.reading() as session:
            key = await session.scalar(statement, id=_key(run_id, Kind.RUN))
        await self._store.download_file(key, path)

    async def _same_model(self, run_id: str, trees: str) -> None:
        """Raises `WrongAnswer` when the run has not made the very model that LightGBM alone made."""
        path = self._folder / "model.txt"
        await self._fetch_model(run_id, path)
        if digest(path.read_text()) != trees:
            raise WrongAnswer("The run and lightgbm.train made different models.")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False)


def _check(answer: bytes, values: Sequence[float], classes: bool) -> None:
    """Raises `WrongAnswer` when the API predicts something else than `Booster.predict`."""
    payload = orjson.loads(answer)["data"]["predict"]
    if payload["errors"]:
        raise WrongAnswer(str(payload["errors"]))
    outputs = payload["prediction"]["outputs"]
    told = [output["probabilities"][1]["probability"] if classes else output["value"] for output in outputs]
    if told != list(values):
        raise WrongAnswer(f"The API predicts {told[:3]}, Booster.predict {values[:3]}.")


def _delay(name: str, delays: Sequence[float]) -> Figure:
    return Figure(
        name=name,
        value=quantile(delays, 0.99) * 1e3,
        unit="ms",
        target=200.0,
        detail=f"99 % of {len(delays):,} rounds; median {median(delays) * 1e3:.0f} ms, slowest {max(delays) * 1e3:.0f} "
        f"ms; metricPoints with maxUpdatesPerSecond {_UPDATES_PER_SECOND}",
    )


def _rows(count: int, *, seed: int) -> list[dict[str, float]]:
    values = np.random.default_rng(seed).normal(size=(count, FEATURES)).round(5)
    return [dict(zip(feature_names(), row, strict=True)) for row in values.tolist()]


def _key(text: str, kind: Kind) -> UUID:
    key = key_of(text, kind)
    assert key is not None
    return key


async def _alone(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `benchmarks.alone` answers; its idle threads sleep, as those of runs do, which is faster on busy cores."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.alone",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
    )
    output, _ = await process.communicate(orjson.dumps(asked) + b"\n")
    if process.returncode != 0:
        raise RunFailed(f"LightGBM alone ended with status {process.returncode}.")
    answer: dict[str, Any] = orjson.loads(output.splitlines()[-1])
    return answer


def _list(seconds: Sequence[float]) -> str:
    return ", ".join(f"{one:.2f}" for one in seconds)
