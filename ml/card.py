"""The model card: what a reader wants to know of a model before using it, as Markdown, made from its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_TOP_FEATURES = 15
_TOP_CATEGORIES = 8


def written(manifest: dict[str, Any]) -> str:
    """The card of the model that the manifest describes; the same manifest gives the same text."""
    spec, split = manifest["spec"], manifest["split"]
    inputs = manifest["signature"]["inputs"]
    lines = [
        "# Model card",
        "",
        f"Predicts {_code(spec['target'])} from {len(inputs)} features: {manifest['task'].replace('_', ' ').lower()} "
        f"with LightGBM {manifest['versions'].get('lightgbm', '')}.",
    ]
    if manifest["labels"] is not None:
        lines += ["", f"Labels: {', '.join(_code(label) for label in manifest['labels'])}."]
    for found in manifest["evaluations"]:
        lines += ["", f"## How good it is: {found['split']}, {found['rows']} rows", ""]
        lines += _table(("metric", "value"), ((m["name"], _number(m["value"])) for m in found["metrics"]))
    lines += ["", "## What it looks at", ""]
    gain = manifest["importance"]["GAIN"][:_TOP_FEATURES]
    lines += _table(("feature", "share of the gain"), ((_code(f["feature"]), f"{f['share']:.1%}") for f in gain))
    lines += ["", "## What it takes", ""]
    lines += _table(("feature", "type", "may be missing", "categories"), (_input(field) for field in inputs))
    lines += ["", "## How it was made", ""]
    rows = (f"{split['train_rows']} to train, {split['validation_rows']} to validate, {split['test_rows']} to test",)
    lines += _table(
        ("", ""),
        (
            ("data, SHA-256", _code(manifest["data_sha256"])),
            ("rows", *rows),
            ("split, SHA-256", _code(split["sha256"])),
            ("seed", str(manifest["seed"])),
            ("rounds", f"{manifest['rounds']}, kept up to round {manifest['best_step']}"),
            ("threads and ranks", f"{manifest['threads']} and {manifest['ranks']}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in sorted(manifest["versions"].items()))),
        ),
    )
    explicit = [(_code(name), _code(spec["params"].get(name))) for name in manifest["explicit_params"]]
    if explicit:
        lines += ["", "Parameters that were set:", "", *_table(("parameter", "value"), explicit)]
    return "\n".join(lines) + "\n"


def _input(field: dict[str, Any]) -> tuple[str, ...]:
    categories = field["categories"] or ()
    shown = ", ".join(_code(category) for category in categories[:_TOP_CATEGORIES])
    more = f" and {len(categories) - _TOP_CATEGORIES} more" if len(categories) > _TOP_CATEGORIES else ""
    return _code(field["name"]), field["type"], "yes" if field["nullable"] else "no", shown + more


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(value: Any) -> str:
    """A name or a value as code, so that nothing a user wrote is read as Markdown."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    fence = "``" if "`" in text else "`"
    return f"{fence} {text} {fence}" if fence == "``" else f"`{text}`"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.6g}"
