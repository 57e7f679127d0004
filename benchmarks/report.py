"""What was measured, as figures against targets and as ratios, for people (a table) and for machines (JSON)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure; with a target it is met when it is not above it. `detail` says what it was measured on."""

    name: str
    value: float
    unit: str
    target: float | None = None
    detail: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How one server answered one question for a number of clients, over all rounds; seconds.

    `cpu_seconds` are those of the server's processes for one request, `busy_before` the share of the machine's CPU
    that was busy with something else right before a round, at its worst.
    """

    question: str
    server: str
    clients: int
    requests: int
    throughput: float
    p50: float
    p99: float
    cpu_seconds: float
    busy_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    machine: dict[str, str]
    answered: list[Answered] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def write(self, path: Path) -> None:
        content: dict[str, Any] = asdict(self)
        for figure, shown in zip(self.figures, content["figures"], strict=True):
            shown["met"] = figure.met
        path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")

    def show(self, console: Console) -> None:
        for name, value in self.machine.items():
            console.print(f"[bold]{name}[/]: {value}", highlight=False)
        for table in compared(self.answered):
            console.print(table)
        if self.answered:
            console.print("In brackets: the peer's figure over that of Head AI.")
        if self.figures:
            console.print(against_targets(self.figures))


def compared(answered: Sequence[Answered]) -> list[Table]:
    """A table a question: Head AI in absolute terms, and every other server also as a ratio to it."""
    tables: list[Table] = []
    base: Answered | None = None
    for one in answered:
        if base is None or one.question != base.question:
            table = Table(title=one.question, title_justify="left")
            table.add_column("clients", justify="right")
            table.add_column("server", no_wrap=True)
            for column in ("requests/s", "p50 ms", "p99 ms", "CPU ms", "requests", "busy before"):
                table.add_column(column, justify="right", no_wrap=True)
            tables.append(table)
        starts = base is None or (one.question, one.clients) != (base.question, base.clients)
        if starts or base is None:
            table.add_section()
            base = one
        table.add_row(
            str(one.clients) if starts else "",
            one.server,
            _with_ratio(one.throughput, base.throughput, starts),
            _with_ratio(one.p50 * 1e3, base.p50 * 1e3, starts),
            _with_ratio(one.p99 * 1e3, base.p99 * 1e3, starts),
            _with_ratio(one.cpu_seconds * 1e3, base.cpu_seconds * 1e3, starts),
            str(one.requests),
            f"{one.busy_before:.0%}",
        )
    return tables


def _with_ratio(value: float, base: float, starts: bool) -> str:
    shown = f"{value:,.1f}"
    return shown if starts else f"{shown} ({value / base:.2f}×)"


def against_targets(figures: Sequence[Figure]) -> Table:
    table = Table(title="Figures", title_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("met", no_wrap=True)
    table.add_column("measured on")
    for figure in figures:
        met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[figure.met]
        target = "" if figure.target is None else f"≤ {figure.target:g} {figure.unit}"
        table.add_row(figure.name, f"{figure.value:,.3g} {figure.unit}", target, met, figure.detail)
    return table
