"""What becomes of a large file: sent, checked, converted and described, held against the bare libraries doing the same.

The bare sequence is polars writing the CSV file as Parquet and DuckDB's SUMMARIZE of that; the bare upload is aioboto3
writing the same bytes to the same store.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aioboto3
import numpy as np
import polars as pl
import psutil
from boto3.s3.transfer import TransferConfig
from rich.console import Console

from benchmarks.report import Figure
from benchmarks.stack import Running
from headai.administration import FIRST
from headai.client import Api
from headai.push import MIB, PARTS_AT_ONCE, Push

AT_ONCE = 500_000
PREVIEWS = 40
CITIES = ["Berlin", "Paris", "New York", "São Paulo", "Tokyo", "Lagos", "Lima"]
SAMPLE_SECONDS = 0.05
PREVIEW = """
query Preview($id: ID!, $mode: PreviewMode) { datasetVersion(id: $id) { preview(limit: 50, mode: $mode) { rows } } }
"""
_BARE = """
import json, resource, sys, time
import polars, duckdb
source, target = sys.argv[1:]
began = time.perf_counter()
polars.scan_csv(source, try_parse_dates=True).sink_parquet(target, compression="zstd", row_group_size=131072)
converted = time.perf_counter()
with duckdb.connect(config={"threads": 2, "memory_limit": "614MiB"}) as engine:
    engine.execute("SUMMARIZE SELECT * FROM read_parquet('" + target + "')").fetchall()
done = time.perf_counter()
print(json.dumps({"convert": converted - began, "profile": done - converted,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


async def measure(head_ai: Running, *, rows: int, console: Console) -> AsyncGenerator[Figure, None]:
    """The figures for a CSV file of so many rows with 11 mixed columns, about 117 bytes a row."""
    with tempfile.TemporaryDirectory(prefix="headai-bench-data-") as folder:
        source = Path(folder) / "large.csv"
        console.print(f"Writing a CSV file of {rows:,} rows")
        await asyncio.to_thread(write_csv, source, rows)
        size = source.stat().st_size
        detail = f"CSV of {size / 1e9:.2f} GB, {rows:,} rows, 11 columns"
        async with Api.at(head_ai.url) as api:
            await api.sign_in(FIRST, head_ai.password)
            made = await api.send("CreateProject", {"input": {"slug": "large", "name": "Large"}})
            pusher = Push(api, Console(quiet=True), project=made["project"]["slug"])

            console.print("Sending it: aioboto3, headai datasets push, aioboto3")
            alone = [await _alone(head_ai, source, 1)]
            began = time.perf_counter()
            pushed = await pusher.file(source, dataset="large", wait=False)
            sent = time.perf_counter() - began
            completed = time.perf_counter()
            version_id = pushed.version["id"]
            peak = await _ready(head_ai, api, version_id)
            took = time.perf_counter() - completed
            alone.append(await _alone(head_ai, source, 2))
            yield Figure(
                name="push / aioboto3 upload_file, time",
                value=sent / statistics.mean(alone),
                unit="×",
                target=1 / 0.9,
                detail=f"{detail}; {size / sent / 1e6:.0f} MB/s with both digests",
            )
            console.print("The bare sequence")
            bare = await _bare(source, Path(folder) / "bare.parquet")
            alone_seconds = bare["convert"] + bare["profile"]
            yield Figure(
                name="completeUpload to READY / polars to Parquet + DuckDB SUMMARIZE",
                value=took / alone_seconds,
                unit="×",
                target=1.3,
                detail=f"{took:.1f} s against {bare['convert']:.1f} + {bare['profile']:.1f} s",
            )
            yield Figure(
                name="worker and its children, highest resident memory",
                value=peak / 1e6,
                unit="MB",
                target=1500,
                detail=f"{detail}; the bare sequence {bare['peak'] / 1e6:.0f} MB",
            )
            for mode in ("HEAD", "TAIL", "SAMPLE"):
                yield Figure(
                    name=f"preview {mode}, p50",
                    value=await _preview(head_ai, version_id, mode),
                    unit="ms",
                    target=100,
                    detail="50 rows of 11 columns over HTTP",
                )


def write_csv(path: Path, rows: int) -> None:
    chance = np.random.default_rng(20_240_229)
    days = np.datetime64("2015-01-01")
    with path.open("wb") as file:
        for start in range(0, rows, AT_ONCE):
            n = min(AT_ONCE, rows - start)
            price = pl.Series(np.round(chance.lognormal(3, 1, n), 2))
            frame = pl.DataFrame(
                {
                    "id": np.arange(start, start + n),
                    "price": price.set(pl.Series(chance.random(n) < 0.02), None),
                    "score": chance.normal(0, 1, n),
                    "ratio": chance.random(n),
                    "amount": chance.integers(0, 10**9, n),
                    "quantity": chance.integers(0, 100, n),
                    "active": chance.random(n) < 0.3,
                    "city": chance.choice(CITIES, n),
                    "day": days + chance.integers(0, 3650, n).astype("timedelta64[D]"),
                    "at": (days + chance.integers(0, 315_360_000, n).astype("timedelta64[s]")).astype("datetime64[us]"),
                    "code": np.char.add("c", chance.integers(0, 5_000_000, n).astype(str)),
                }
            )
            frame.write_csv(file, include_header=start == 0, datetime_format="%Y-%m-%d %H:%M:%S")


async def _alone(head_ai: Running, source: Path, number: int) -> float:
    """Seconds that aioboto3 takes to write the file to the store, as many parts of the same size at once."""
    store = head_ai.settings.store()
    session = aioboto3.Session(
        aws_access_key_id=store.access_key, aws_secret_access_key=store.secret_key, region_name=store.region
    )
    config = TransferConfig(multipart_chunksize=8 * MIB, max_concurrency=PARTS_AT_ONCE)
    async with session.client("s3", endpoint_url=store.endpoint_url) as client:
        began = time.perf_counter()
        await client.upload_file(str(source), store.bucket, f"bench/{number}", Config=config)
        took = time.perf_counter() - began
        await client.delete_object(Bucket=store.bucket, Key=f"bench/{number}")
    return took


async def _ready(head_ai: Running, api: Api, version_id: str) -> int:
    """Wait for the version; the most memory that the worker and its children held together, in bytes."""
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, await asyncio.to_thread(_resident, head_ai.worker))
            await asyncio.sleep(SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        async with aclosing(api.follow("DatasetVersionUpdated", {"id": version_id})) as updates:
            async for update in updates:
                version = update["datasetVersion"]
                if version["status"] == "FAILED":
                    raise RuntimeError(version["failure"]["message"])
                if version["status"] == "READY":
                    break
    finally:
        watching.cancel()
    return peak


def _resident(pid: int) -> int:
    total = 0
    try:
        worker = psutil.Process(pid)
        for process in (worker, *worker.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
    except psutil.Error:
        return 0
    return total


async def _bare(source: Path, target: Path) -> dict[str, Any]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _BARE, str(source), str(target), stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    output, _ = await started.communicate()
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


async def _preview(head_ai: Running, version_id: str, mode: str) -> float:
    """Milliseconds, the median after two that warm up."""
    import httpx

    headers = {"authorization": f"Bearer {await head_ai.token()}"}
    body = {"query": PREVIEW, "variables": {"id": version_id, "mode": mode}}
    seconds = []
    async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=60) as http:
        for _ in range(PREVIEWS):
            began = time.perf_counter()
            answer = (await http.post(f"{head_ai.url}/graphql", json=body)).json()
            seconds.append(time.perf_counter() - began)
            if len(answer["data"]["datasetVersion"]["preview"]["rows"]) != 50:
                raise RuntimeError(f"the preview answered {answer}")
    return statistics.median(seconds[2:]) * 1000
