"""`headai demo`: the main job from a file to a prediction, through the public API alone.

Sign in, make a project, upload real data, wait for its profile, train with early stopping while the training curve
is drawn, register the model, predict rows with reasons. Each operation is a file of `headai/operations`.
"""

import asyncio
import hashlib
import math
import secrets
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from headai.client import Api, ApiTrouble
from headai.curve import draw_curves

FINAL = {"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELED"}
FORMATS = {".csv": "CSV", ".parquet": "PARQUET", ".pq": "PARQUET"}
METRICS = {
    "BINARY_CLASSIFICATION": ["binary_logloss", "auc"],
    "MULTICLASS_CLASSIFICATION": ["multi_logloss", "accuracy"],
    "REGRESSION": ["rmse", "mae"],
}
MOST_CLASSES = 20
ROWS_TO_PREDICT = 5
COLUMNS_SHOWN = 12
REASONS_SHOWN = 3

_QUIET_AFTER_THE_END = 0.7
_PATIENCE_AFTER_THE_END = 5.0
_STYLES = {"train": "blue", "valid": "bright_green"}


@dataclass(frozen=True)
class Source:
    """The file to learn from and the column to predict."""

    path: Path
    target: str
    name: str
    """What dataset and model are called."""


class Demo:
    """One walk through the main job; remembers what it sent, to show it at the end."""

    def __init__(self, api: Api, console: Console) -> None:
        self.api = api
        self.console = console
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.unfinished_run: str | None = None

    async def send(self, operation: str, variables: dict[str, Any]) -> Any:
        self.sent.append((operation, variables))
        return await self.api.send(operation, variables)

    def say(self, what: str) -> None:
        self.console.print(f"[bold cyan]•[/] {what}")

    async def run(self, source: Source) -> None:
        project = await self.make_project()
        dataset = (await self.send("CreateDataset", {"input": {"projectId": project["id"], "name": source.name}}))[
            "dataset"
        ]
        version_id = await self.upload(source.path, dataset["id"])
        columns = await self.wait_until_profiled(version_id)
        task = self.guess_task(columns, source.target)
        run_id, features = await self.train(project["id"], version_id, source.target, task)
        model, model_version = await self.register(project["id"], run_id, source, task)
        await self.predict(model["id"], version_id, source.target, features)
        self.show_the_way_on(project, dataset, version_id, run_id, model, model_version)

    async def make_project(self) -> dict[str, Any]:
        """The project `demo`, or one with a fresh name when that is taken."""
        for slug in ("demo", f"demo-{secrets.token_hex(3)}"):
            try:
                payload = await self.send("CreateProject", {"input": {"slug": slug, "name": slug.capitalize()}})
            except ApiTrouble as trouble:
                if trouble.codes != {"ALREADY_EXISTS"} or slug != "demo":
                    raise
                self.sent.pop()
            else:
                project: dict[str, Any] = payload["project"]
                self.say(f"Project [bold]{slug}[/]")
                return project
        raise AssertionError("unreachable")

    async def upload(self, path: Path, dataset_id: str) -> str:
        """Send the file part by part to the signed URLs; returns the ID of the dataset version."""
        size = await asyncio.to_thread(_size, path)
        digest = await asyncio.to_thread(_sha256, path)
        payload = await self.send(
            "StartUpload",
            {
                "input": {
                    "datasetId": dataset_id,
                    "fileName": path.name,
                    "sizeBytes": size,
                    "format": FORMATS[path.suffix.lower()],
                    "sha256": digest,
                }
            },
        )
        upload, targets = payload["upload"], {part["partNumber"]: part for part in payload["parts"]}
        part_size, parts = int(upload["partSizeBytes"]), []
        with Progress(
            TextColumn("[bold cyan]•[/] Uploading {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        ) as progress:
            bar = progress.add_task(escape(path.name), total=size)
            for number in range(1, upload["partCount"] + 1):
                content = await asyncio.to_thread(_part, path, number, part_size)
                target = targets.pop(number, None) or await self.fresh_target(upload["id"], number)
                try:
                    etag = await self.api.put(target, content, size=len(content))
                except ApiTrouble:
                    etag = await self.api.put(await self.fresh_target(upload["id"], number), content, size=len(content))
                parts.append({"partNumber": number, "etag": etag})
                progress.advance(bar, len(content))
        completed = await self.send("CompleteUpload", {"input": {"uploadId": upload["id"], "parts": parts}})
        count = f"{len(parts)} part{'s' if len(parts) != 1 else ''}"
        self.say(f"Uploaded [bold]{escape(path.name)}[/]: {_bytes(size)} in {count}, straight to the object store")
        return str(completed["datasetVersion"]["id"])

    async def fresh_target(self, upload_id: str, number: int) -> dict[str, Any]:
        wanted = {"input": {"uploadId": upload_id, "partNumbers": [number]}}
        target: dict[str, Any] = (await self.api.send("RequestUploadParts", wanted))["parts"][0]
        return target

    async def wait_until_profiled(self, version_id: str) -> list[dict[str, Any]]:
        """Follow the version until it is ready, then print its columns; returns them in order."""
        started = time.monotonic()
        self.sent.append(("DatasetVersionUpdated", {"id": version_id}))
        with self.waiting("Checking and profiling the data") as show:
            async with aclosing(self.api.follow("DatasetVersionUpdated", {"id": version_id})) as updates:
                async for update in updates:
                    version = update["datasetVersion"]
                    if version is None:
                        raise ApiTrouble("The dataset version is gone: somebody deleted it.")
                    if version["status"] == "FAILED":
                        raise ApiTrouble(f"The data cannot be used: {version['failure']['message']}")
                    if version["status"] == "READY":
                        break
                    show(f"Checking and profiling the data{_progress(version['progress'])}")
        columns: list[dict[str, Any]] = []
        variables: dict[str, Any] = {"id": version_id, "columns": 50}
        self.sent.append(("DatasetVersion", variables))
        while True:
            version = await self.api.send("DatasetVersion", variables)
            columns += version["columns"]["nodes"]
            if not version["columns"]["pageInfo"]["hasNextPage"]:
                break
            variables = variables | {"after": version["columns"]["pageInfo"]["endCursor"]}
        seconds = time.monotonic() - started
        self.say(
            f"Ready after {seconds:.1f} s: [bold]{int(version['rowCount']):,}[/] rows, "
            f"[bold]{version['columnCount']}[/] columns"
        )
        self.console.print(_columns_table(columns))
        return columns

    def guess_task(self, columns: Sequence[Mapping[str, Any]], target: str) -> str:
        """The kind of task a target asks for, by its type and the number of its values; said aloud."""
        column = next((column for column in columns if column["name"] == target), None)
        if column is None:
            names = ", ".join(column["name"] for column in columns[:30])
            raise ApiTrouble(f"The data has no column {target!r}. It has: {names}.")
        task, reason = guess_task(column)
        self.say(f"[bold]{escape(target)}[/] has {reason}: {task.lower().replace('_', ' ')}")
        return task

    async def train(self, project_id: str, version_id: str, target: str, task: str) -> tuple[str, list[str]]:
        """Validate, start, and draw until the run has ended; returns its ID and the features it learned from."""
        classification = task != "REGRESSION"
        run_input = {
            "projectId": project_id,
            "datasetVersionId": version_id,
            "spec": {
                "task": task,
                "target": target,
                "params": {"num_leaves": 15, "learning_rate": 0.03},
                "numRounds": 1000,
                "earlyStoppingRounds": 50,
                "evaluationMetrics": METRICS[task],
                "split": {"strategy": "STRATIFIED" if classification else "RANDOM", "validationFraction": 0.25},
            },
        }
        checked = await self.send("ValidateTrainingRun", {"input": run_input})
        for warning in checked["warnings"] or []:
            self.say(f"[yellow]{escape(warning)}[/]")
        features = checked["resolvedSpec"]["features"]
        run = (await self.send("CreateTrainingRun", {"input": run_input}))["trainingRun"]
        self.say(
            f"Training run [bold]{escape(run['name'])}[/]: LightGBM on {len(features)} features, up to 1,000 rounds, "
            "stops after 50 without progress"
        )
        self.unfinished_run = run["id"]
        watched = await self.watch(run["id"], METRICS[task][0])
        self.unfinished_run = None
        if watched.status != "SUCCEEDED":
            reason = (watched.failure or {}).get("message") or watched.reason or "no reason was given"
            raise ApiTrouble(f"The training run ended as {watched.status}: {reason}\nThe run is {run['id']}.")
        return run["id"], features

    async def watch(self, run_id: str, metric: str) -> "Watched":
        """Draw the curve while the run works, from its two subscriptions; returns what was seen."""
        watched = Watched(metric)
        selector = {"scope": "RUN", "names": ["train.*", "valid.*"], "runIds": [run_id]}
        points = {"selector": selector, "maxUpdatesPerSecond": 10}
        self.sent.append(("TrainingRunUpdated", {"id": run_id}))
        self.sent.append(("MetricPoints", points))

        async def follow_points() -> None:
            async with aclosing(self.api.follow("MetricPoints", points)) as batches:
                async for batch in batches:
                    watched.add(batch)

        async def follow_run() -> None:
            async with aclosing(self.api.follow("TrainingRunUpdated", {"id": run_id})) as updates:
                async for update in updates:
                    if update["trainingRun"] is None:
                        raise ApiTrouble("The training run is gone: somebody deleted it.")
                    watched.update(update["trainingRun"])
                    if watched.status in FINAL:
                        return

        with self.drawing(watched) as redraw:
            following = asyncio.create_task(follow_points())
            updating = asyncio.create_task(follow_run())
            try:
                while not updating.done():
                    await asyncio.wait({updating, following}, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                    if following.done():
                        await following
                    redraw()
                await updating
                ended = time.monotonic()
                while time.monotonic() - max(ended, watched.heard_at) < _QUIET_AFTER_THE_END:
                    if following.done() or time.monotonic() - ended > _PATIENCE_AFTER_THE_END:
                        break
                    await asyncio.sleep(0.05)
                redraw()
            finally:
                for task in (following, updating):
                    task.cancel()
                await asyncio.gather(following, updating, return_exceptions=True)
        return watched

    async def register(
        self, project_id: str, run_id: str, source: Source, task: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Make model and version, point `champion` at it, and print how good it is and what matters in it."""
        wanted = {"projectId": project_id, "name": source.name, "task": task}
        model = (await self.send("CreateModel", {"input": wanted}))["model"]
        made = {"modelId": model["id"], "from": {"runId": run_id}}
        version = (await self.send("CreateModelVersion", {"input": made}))["modelVersion"]
        promoted = {"modelId": model["id"], "alias": "champion", "versionId": version["id"]}
        await self.send("SetModelAlias", {"input": promoted})
        version = await self.send("ModelVersion", {"id": version["id"], "top": 8})
        self.say(
            f"Model [bold]{escape(model['name'])}[/] version {version['number']} is the [bold]champion[/] "
            f"({_bytes(int(version['sizeBytes'] or 0))}, sha256 {(version['sha256'] or '')[:12]}…)"
        )
        evaluation = version["latestEvaluation"]
        if evaluation is not None:
            scores = ", ".join(
                f"{metric['name']} [bold]{_number(metric['value'])}[/]" for metric in evaluation["metrics"]
            )
            self.say(f"On the {evaluation['split']} rows: {scores}")
        self.console.print(_importance_table(version["featureImportance"]))
        return model, version

    async def predict(self, model_id: str, version_id: str, target: str, features: Sequence[str]) -> None:
        """Predict a few rows of the data by the alias, beside what is known of them."""
        preview = (await self.send("DatasetPreview", {"id": version_id, "limit": ROWS_TO_PREDICT, "mode": "SAMPLE"}))[
            "preview"
        ]
        if preview is None:
            self.say("[yellow]You may not see rows of the data, so there is nothing to predict with.[/]")
            return
        known = [dict(zip(preview["columns"], row, strict=True)) for row in preview["rows"]]
        rows = [{name: row[name] for name in features} for row in known]
        payload = await self.send(
            "Predict",
            {
                "input": {
                    "model": {"alias": {"modelId": model_id, "alias": "champion"}},
                    "rows": rows,
                    "includeProbabilities": True,
                    "includeContributions": True,
                }
            },
        )
        prediction = payload["prediction"]
        self.say(f"Predicted {len(rows)} rows in {prediction['latencyMs']:.0f} ms")
        self.console.print(_predictions_table(known, prediction["outputs"], target))

    def show_the_way_on(
        self,
        project: Mapping[str, Any],
        dataset: Mapping[str, Any],
        version_id: str,
        run_id: str,
        model: Mapping[str, Any],
        model_version: Mapping[str, Any],
    ) -> None:
        made = Table.grid(padding=(0, 2))
        for what, value in (
            ("explorer", f"{self.api.url}/graphql"),
            ("project", project["id"]),
            ("dataset", dataset["id"]),
            ("version", version_id),
            ("run", run_id),
            ("model", model["id"]),
            ("version", model_version["id"]),
        ):
            made.add_row(Text(what, style="dim"), Text(value))
        self.console.print(
            Panel(made, title="Made by this demo", title_align="left", border_style="green", expand=False)
        )
        self.console.print(
            "The same by hand: these operations, each a tab of the explorer and a file of [bold]headai/operations[/]."
        )
        for number, (operation, variables) in enumerate(self.sent, start=1):
            self.console.print(
                f"[dim]{number:2}.[/] [bold]{operation}[/] {escape(_shortened(variables))}",
                soft_wrap=True,
                highlight=False,
            )

    @contextmanager
    def waiting(self, what: str) -> Iterator[Any]:
        """A spinner with a changing text on a terminal; nothing elsewhere."""
        if not self.console.is_terminal:
            self.say(what)
            yield lambda text: None
            return
        with self.console.status(what) as status:
            yield status.update

    @contextmanager
    def drawing(self, watched: "Watched") -> Iterator[Any]:
        """The curve, redrawn in place on a terminal; elsewhere a line now and then."""
        if self.console.is_terminal:
            with Live(console=self.console, auto_refresh=False, vertical_overflow="visible") as live:
                yield lambda: live.update(watched.picture(self.console.width), refresh=True)
            return
        told, told_at = "", -1.0

        def tell() -> None:
            nonlocal told, told_at
            due = watched.status in FINAL or time.monotonic() - told_at >= 1
            if watched.rounds and due and watched.line() != told:
                told, told_at = watched.line(), time.monotonic()
                self.console.print(told, highlight=False)

        yield tell


@dataclass
class Watched:
    """What the two subscriptions have told about a run so far."""

    metric: str
    """The one that is drawn."""
    status: str = "QUEUED"
    reason: str | None = None
    failure: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    points: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    """Of each series the value of each step; a resumed attempt replaces what it trains again."""
    heard_at: float = 0.0

    def add(self, batch: Mapping[str, Any]) -> None:
        for series in batch["series"]:
            columns = series["columns"]
            for step, value in zip(columns["step"] or (), columns["value"], strict=False):
                if value is not None:
                    self.points[series["name"]][step] = value
        self.heard_at = time.monotonic()

    def update(self, run: Mapping[str, Any]) -> None:
        self.status, self.reason, self.failure = run["status"], run["statusReason"], run["failure"]
        self.progress = run["progress"]

    @property
    def rounds(self) -> int:
        return max((max(steps) + 1 for steps in self.points.values() if steps), default=0)

    def latest(self) -> dict[str, float]:
        return {name: steps[max(steps)] for name, steps in sorted(self.points.items()) if steps}

    def line(self) -> str:
        scores = ", ".join(f"{name} {_number(value)}" for name, value in self.latest().items())
        return f"  {self.status.lower()}, round {self.rounds}: {scores}"

    def picture(self, width: int) -> RenderableType:
        width = min(width, 100)
        head = Text.assemble((f"{self.status.lower()} ", "bold"), f"round {self.rounds}  ")
        for name, value in self.latest().items():
            head.append(f"{name} {_number(value)}  ", style=_STYLES.get(name.split(".")[0], ""))
        curves = {split: sorted(self.points.get(f"{split}.{self.metric}", {}).items()) for split in ("train", "valid")}
        drawn = draw_curves(curves, width=width - 4, height=14, styles=_STYLES)
        waiting = Text("waiting for the first round …", style="dim")
        body = Group(head, drawn if drawn.plain else waiting)
        return Panel(body, title=self.metric, title_align="left", width=width, border_style="dim")


def guess_task(column: Mapping[str, Any]) -> tuple[str, str]:
    """The task and what in the target's profile speaks for it. Raises ApiTrouble for a constant target."""
    profile = column["profile"] or {}
    distinct = int(profile.get("distinctCount") or 0)
    if distinct < 2:
        raise ApiTrouble(f"The column {column['name']!r} has one value only: there is nothing to predict.")
    if distinct == 2:
        return "BINARY_CLASSIFICATION", "two values"
    if column["type"] not in {"INTEGER", "FLOAT", "DECIMAL"}:
        return "MULTICLASS_CLASSIFICATION", f"{distinct:,} classes"
    if column["type"] == "INTEGER" and distinct <= MOST_CLASSES:
        return "MULTICLASS_CLASSIFICATION", f"{distinct} whole numbers as values"
    return "REGRESSION", f"numbers, {distinct:,} different ones"


async def run_demo(
    *,
    url: str,
    username: str,
    password: str,
    data: Path | None = None,
    target: str | None = None,
    console: Console | None = None,
) -> int:
    """Do the main job against the server at `url`; returns the exit status.

    Without `data` and `target` it learns to tell malignant from benign tumours (scikit-learn's breast cancer data).
    """
    console = console or Console()
    started = time.monotonic()
    demo: Demo | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="headai-demo-") as folder:
            source = _given(data, target) if data is not None else _breast_cancer(Path(folder))
            async with Api.at(url) as api:
                demo = Demo(api, console)
                user = await api.sign_in(username, password)
                demo.say(f"Signed in at {url} as [bold]{escape(user['username'])}[/]")
                try:
                    await demo.run(source)
                finally:
                    await _sign_out(api)
    except ApiTrouble as trouble:
        console.print(f"[bold red]The demo stopped.[/] {escape(str(trouble))}", highlight=False)
        return 1
    except asyncio.CancelledError:
        if demo is not None and demo.unfinished_run is not None:
            console.print(f"The run {demo.unfinished_run} goes on; CancelTrainingRun stops it.", highlight=False)
        raise
    console.print(f"[bold green]Done[/] in {time.monotonic() - started:.0f} s.")
    return 0


async def _sign_out(api: Api) -> None:
    try:
        await api.sign_out()
    except ApiTrouble:
        return


def _given(path: Path, target: str | None) -> Source:
    if target is None:
        raise ApiTrouble("Which column is to be predicted? Name it with `--target`.")
    if not path.is_file():
        raise ApiTrouble(f"There is no file {path}.")
    if path.suffix.lower() not in FORMATS:
        raise ApiTrouble(f"{path.name} is neither a .csv nor a .parquet file.")
    if path.stat().st_size == 0:
        raise ApiTrouble(f"{path.name} is empty.")
    return Source(path=path, target=target, name=path.stem[:200])


def _breast_cancer(folder: Path) -> Source:
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        raise ApiTrouble(
            "The demo's data comes with scikit-learn: `pip install 'headai[demo]'`, "
            "or bring your own with `--data FILE --target COLUMN`."
        ) from None
    cancer = load_breast_cancer()
    path = folder / "breast_cancer.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join([*cancer.feature_names, "diagnosis"]) + "\n")
        for features, label in zip(cancer.data.tolist(), cancer.target.tolist(), strict=True):
            file.write(",".join([*map(repr, features), str(cancer.target_names[label])]) + "\n")
    return Source(path=path, target="diagnosis", name="breast-cancer")


def _size(path: Path) -> int:
    return path.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part(path: Path, number: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek((number - 1) * size)
        return file.read(size)


def _progress(progress: Mapping[str, Any]) -> str:
    phase = f": {progress['phase']}" if progress["phase"] else ""
    done = f" {progress['fraction']:.0%}" if progress["fraction"] is not None else ""
    return escape(f"{phase}{done}")


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:.4g}" if value else "0"


def _bytes(size: int) -> str:
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def _shortened(variables: Mapping[str, Any]) -> str:
    """The variables as one line of JSON; of rows to predict, the first stands for all."""
    content = dict(variables)
    if isinstance(content.get("input"), dict) and "rows" in content["input"]:
        content["input"] = content["input"] | {"rows": content["input"]["rows"][:1]}
    return orjson.dumps(content).decode()


def _columns_table(columns: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("column", no_wrap=True, max_width=32)
    table.add_column("type")
    for name in ("missing", "distinct", "min", "mean", "max"):
        table.add_column(name, justify="right")
    table.add_column("most frequent", no_wrap=True, overflow="ellipsis")
    shown = columns if len(columns) <= COLUMNS_SHOWN else [*columns[: COLUMNS_SHOWN - 1], columns[-1]]
    for index, column in enumerate(shown):
        if index == len(shown) - 1 and len(shown) < len(columns):
            table.add_row(f"[dim]… {len(columns) - len(shown)} more[/]")
        profile = column["profile"] or {}
        numeric = profile.get("numeric") or {}
        distinct = profile.get("distinctCount")
        about = "~" if profile.get("distinctCountIsEstimate") else ""
        frequent = ", ".join(f"{top['value']} ({int(top['count']):,})" for top in (profile.get("topValues") or [])[:2])
        table.add_row(
            Text(column["name"]),
            column["type"].lower(),
            f"{int(profile.get('nullCount') or 0):,}",
            f"{about}{int(distinct):,}" if distinct is not None else "n/a",
            *(_number(numeric[name]) if numeric else "" for name in ("min", "mean", "max")),
            Text("" if numeric else frequent),
        )
    return table


def _importance_table(importances: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("what matters", no_wrap=True, max_width=32)
    table.add_column("share of gain", justify="right")
    table.add_column("")
    largest = max((entry["share"] for entry in importances), default=0) or 1
    for entry in importances:
        bar = "█" * max(1, round(30 * entry["share"] / largest)) if entry["share"] > 0 else ""
        table.add_row(Text(entry["feature"]), f"{entry['share']:.1%}", Text(bar, style="blue"))
    return table


def _predictions_table(known: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]], target: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("row", justify="right")
    table.add_column("known")
    table.add_column("predicted")
    table.add_column("probability", justify="right")
    table.add_column("because of")
    for number, (row, output) in enumerate(zip(known, outputs, strict=True), start=1):
        value, probabilities = output["value"], output["probabilities"]
        sure = max((entry["probability"] for entry in probabilities), default=None) if probabilities else None
        reasons = sorted(
            (entry for entry in output["contributions"] or [] if entry["feature"] != "<base>"),
            key=lambda entry: -abs(entry["contribution"]),
        )
        table.add_row(
            str(number),
            Text(_shown(row[target])),
            Text(_shown(value), style="bold"),
            f"{sure:.1%}" if sure is not None else "",
            Text(", ".join(f"{e['feature']} {e['contribution']:+.2f}" for e in reasons[:REASONS_SHOWN])),
        )
    return table


def _shown(value: Any) -> str:
    return _number(value) if isinstance(value, float) else str(value)
