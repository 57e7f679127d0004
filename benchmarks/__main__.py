"""`python -m benchmarks`: measure what Head AI claims about speed, on a stack of its own, and print it."""

import asyncio
import signal
import sys
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from benchmarks import abuse, access, datasets, job, metrics
from benchmarks.comparison import compare
from benchmarks.machine import described
from benchmarks.report import Report
from benchmarks.stack import running


class Part(StrEnum):
    ALL = "all"
    QUERIES = "queries"
    JOB = "job"
    METRICS = "metrics"
    DATASETS = "datasets"
    ABUSE = "abuse"


def main(
    only: Annotated[
        Part, typer.Option(help="The queries against their peers, the main job, metrics, a large file, or abuse.")
    ] = (Part.ALL),
    quick: Annotated[
        bool, typer.Option("--quick", help="A shorter run for the inner loop; its figures are rough.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of the queries.")] = 3,
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the large file: 12,000,000 are 1.4 GB.")] = 1_200_000,
    json: Annotated[Path | None, typer.Option(help="A file to write every figure to.")] = None,
) -> None:
    """Start a Head AI of its own in a temporary folder, measure it, and stop it."""
    console = Console() if sys.stdout.isatty() else Console(width=140)
    report = Report(machine=described())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_measure(report, only, quick=quick, rounds=rounds, rows=rows, console=console))
    except asyncio.CancelledError:
        sys.exit("Stopped; this is what was measured so far.")
    finally:
        report.show(console)
        if json is not None:
            report.write(json)


async def _measure(report: Report, only: Part, *, quick: bool, rounds: int, rows: int, console: Console) -> None:
    """Fill the report; what was measured before something went wrong, or SIGTERM, stays in it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    share, patience = (0.25, 1) if quick else (1.0, 5)
    async with running() as head_ai:
        report.figures.extend(await job.idle_memory(head_ai, when="just started"))
        if only in (Part.ALL, Part.QUERIES):
            comparing = compare(head_ai, rounds=1 if quick else rounds, share=share, patience=patience, console=console)
            async with aclosing(comparing):
                async for answered in comparing:
                    report.answered.append(answered)
            guarding = access.measure(
                head_ai, rounds=1 if quick else rounds, share=share, patience=patience, console=console
            )
            async with aclosing(guarding):
                async for figure in guarding:
                    report.figures.append(figure)
        if only in (Part.ALL, Part.METRICS):
            metering = metrics.measure(head_ai, size=metrics.QUICK if quick else metrics.FULL, console=console)
            async with aclosing(metering):
                async for figure in metering:
                    report.figures.append(figure)
        if only in (Part.ALL, Part.DATASETS):
            large = datasets.measure(head_ai, rows=rows // 4 if quick else rows, console=console)
            async with aclosing(large):
                async for figure in large:
                    report.figures.append(figure)
        if only in (Part.ALL, Part.ABUSE):
            async with aclosing(abuse.measure(head_ai, quick=quick, patience=patience, console=console)) as abused:
                async for figure in abused:
                    report.figures.append(figure)
        if only in (Part.ALL, Part.JOB):
            measuring = job.measure(head_ai, size=job.QUICK if quick else job.FULL, console=console)
            async with aclosing(measuring):
                async for figure in measuring:
                    report.figures.append(figure)
            report.figures.extend(await job.idle_memory(head_ai, when="after all this work"))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
