"""Whether a file is a LightGBM model that can be served: its text is checked line by line before LightGBM reads it.

LightGBM trusts what it reads: a damaged text ends the process, makes it hang, or is read and gives nonsense later. So
the trees are checked to be trees, every index to point at something, every number to be one. What passes is then
loaded and asked for predictions, in a child that may die of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import orjson

from ml import artifact
from ml.algorithm import PARAMETERS
from ml.children import Control
from ml.evaluation import label_text, ranked
from ml.messages import AdmitJob, Admitted, ModelUnreadable
from ml.spec import Task

MOST_FEATURES = 100_000
MOST_LEAVES = 1 << 20
_PROBES = 64
_TASKS = {
    "binary": Task.BINARY_CLASSIFICATION,
    "multiclass": Task.MULTICLASS_CLASSIFICATION,
    "multiclassova": Task.MULTICLASS_CLASSIFICATION,
    "lambdarank": Task.RANKING,
    "rank_xendcg": Task.RANKING,
}
_REGRESSION = frozenset(
    [
        "regression",
        "regression_l2",
        "regression_l1",
        "huber",
        "fair",
        "poisson",
        "quantile",
        "mape",
        "gamma",
        "tweedie",
        "cross_entropy",
        "cross_entropy_lambda",
    ]
)


def admit_in_child(control: Control, job: AdmitJob) -> Admitted:
    """Check the file and write `manifest.json` beside it. Raises `ModelUnreadable`, saying what is wrong."""
    content = Path(job.path).read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ModelUnreadable("The file is not text: give the file that Booster.save_model wrote.") from error
    header = read(text)
    if header.task is not Task(job.task):
        message = f"The file is a model for {header.task}, and this model is for {job.task}."
        raise ModelUnreadable(message)
    booster = _loaded(text, header)
    manifest = _manifest(booster, header, text)
    folder = Path(job.path).parent
    written = artifact.write_file(folder, artifact.MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    return Admitted(
        sha256=artifact.sha256_of(job.path),
        size_bytes=len(content),
        manifest_sha256=written.sha256,
        signature=manifest["signature"],
        importance=manifest["importance"],
        params=_params(text),
    )


class Header:
    """What the lines before the first tree say, checked against each other."""

    def __init__(self, lines: Sequence[str]) -> None:
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        if not lines or lines[0] != "tree" or not values.get("version", "").startswith("v"):
            raise ModelUnreadable("The file does not begin as a LightGBM model does: give what save_model wrote.")
        self.classes = _whole(values, "num_class", 1, 100_000)
        self.trees_a_round = _whole(values, "num_tree_per_iteration", 1, 100_000)
        count = _whole(values, "max_feature_idx", 0, MOST_FEATURES - 1) + 1
        self.names = values.get("feature_names", "").split(" ")
        self.infos = values.get("feature_infos", "").split(" ")
        if len(self.names) != count or len(self.infos) != count:
            raise ModelUnreadable(f"The file says it has {count} features, and names {len(self.names)}.")
        if len(set(self.names)) != count or "" in self.names:
            raise ModelUnreadable("Two features of the model have one name, or one has none.")
        self.sizes = [int(size) for size in _numbers(values.get("tree_sizes", ""), "tree_sizes", int)]
        objective = values.get("objective", "").split(" ")[0]
        if objective in _TASKS:
            self.task = _TASKS[objective]
        elif objective in _REGRESSION or not objective:
            self.task = Task.REGRESSION
        else:
            raise ModelUnreadable(f"Models with the objective {objective!r} cannot be served.")
        expected = self.classes if self.task is Task.MULTICLASS_CLASSIFICATION else 1
        many = self.task is Task.MULTICLASS_CLASSIFICATION and self.classes < 3
        if self.trees_a_round != expected or (expected == 1 and self.classes != 1) or many:
            message = f"The file is contradictory: {objective} with {self.classes} classes and {self.trees_a_round} "
            raise ModelUnreadable(message + "trees a round.")


def read(text: str) -> Header:
    """The header of a model whose every tree is sound. Raises `ModelUnreadable`."""
    lines = text.split("\n")
    try:
        first = next(number for number, line in enumerate(lines) if line.startswith("Tree="))
        last = lines.index("end of trees")
    except (StopIteration, ValueError):
        raise ModelUnreadable("The file is not whole: it has no trees, or ends before their end.") from None
    if "parameters:" in lines[last:] and "end of parameters" not in lines[last:]:
        raise ModelUnreadable("The file is not whole: its parameters have no end.")
    header = Header(lines[:first])
    starts = [number for number in range(first, last) if lines[number].startswith("Tree=")]
    if len(starts) % header.trees_a_round:
        raise ModelUnreadable(f"The file has {len(starts)} trees, {header.trees_a_round} belong to a round.")
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], last], strict=True)):
        if lines[start] != f"Tree={number}":
            raise ModelUnreadable(f"Tree {number} is missing, or not where it belongs.")
        _check_tree(f"Tree {number}", lines[start + 1 : end], len(header.names))
    if header.sizes:
        found = [
            sum(len(line.encode()) + 1 for line in lines[start:end])
            for start, end in zip(starts, [*starts[1:], last], strict=True)
        ]
        if found != header.sizes:
            raise ModelUnreadable("The trees are not as long as the file says: it was changed, or cut.")
    return header


def _check_tree(name: str, lines: Sequence[str], features: int) -> None:
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    leaves = _whole(values, "num_leaves", 1, MOST_LEAVES, name)
    categorical = _whole(values, "num_cat", 0, MOST_LEAVES, name)
    inner = leaves - 1

    def numbers(key: str, count: int, kind: type = float, *, needed: bool = True) -> list[Any]:
        if not needed and key not in values:
            return []
        found = _numbers(values.get(key, ""), f"{name}: {key}", kind)
        if len(found) != count:
            raise ModelUnreadable(f"{name}: {key} has {len(found)} values, not {count}.")
        return found

    numbers("leaf_value", leaves)
    for key, count in (("leaf_weight", leaves), ("leaf_count", leaves)):
        numbers(key, count if inner or values.get(key, "") else 0, needed=False)
    for key in ("split_gain", "internal_value", "internal_weight", "internal_count"):
        numbers(key, inner, needed=False)
    if inner:
        if not all(0 <= feature < features for feature in numbers("split_feature", inner, int)):
            raise ModelUnreadable(f"{name} splits by a feature that there is not.")
        thresholds, decisions = numbers("threshold", inner), numbers("decision_type", inner, int)
        if not all(0 <= decision < 16 for decision in decisions):
            raise ModelUnreadable(f"{name} has a decision of a kind that there is not.")
        _check_shape(name, numbers("left_child", inner, int), numbers("right_child", inner, int), leaves)
        by_category = [threshold for threshold, kind in zip(thresholds, decisions, strict=True) if kind & 1]
        if not all(threshold.is_integer() and 0 <= threshold < categorical for threshold in by_category):
            raise ModelUnreadable(f"{name} splits by categories that are not listed.")
    if categorical:
        bounds = numbers("cat_boundaries", categorical + 1, int)
        if bounds[0] != 0 or any(low > high for low, high in pairwise(bounds)):
            raise ModelUnreadable(f"{name} lists its categories out of order.")
        words = numbers("cat_threshold", bounds[-1], int)
        if not all(0 <= word < 2**32 for word in words):
            raise ModelUnreadable(f"{name} lists categories that cannot be.")
    if _whole(values, "is_linear", 0, 1, name, default=0):
        numbers("leaf_const", leaves)
        of_leaf = numbers("num_features", leaves, int)
        if min(of_leaf) < 0:
            raise ModelUnreadable(f"{name} has a leaf with fewer than no features.")
        used = numbers("leaf_features", sum(of_leaf), int)
        numbers("leaf_coeff", sum(of_leaf))
        if not all(0 <= feature < features for feature in used):
            raise ModelUnreadable(f"{name} has a leaf with a feature that there is not.")


def _check_shape(name: str, left: Sequence[int], right: Sequence[int], leaves: int) -> None:
    """Every node but the root and every leaf has one parent, which comes before it: so there is no way round."""
    met: set[int] = set()
    for parent, children in enumerate(zip(left, right, strict=True)):
        for child in children:
            sound = parent < child < leaves - 1 if child >= 0 else ~child < leaves
            if not sound or child in met:
                raise ModelUnreadable(f"{name} is no tree: node {parent} leads to {child}.")
            met.add(child)


def _whole(
    values: dict[str, str], key: str, low: int, high: int, where: str = "The file", *, default: int | None = None
) -> int:
    if key not in values and default is not None:
        return default
    text = values.get(key, "")
    if not text.isascii() or not text.isdigit() or not low <= int(text[:20]) <= high:
        raise ModelUnreadable(f"{where}: {key} is {text[:40]!r}, not a number from {low} to {high}.")
    return int(text)


def _numbers(text: str, where: str, kind: type) -> list[Any]:
    try:
        found = [kind(part) for part in text.split(" ") if part]
    except ValueError:
        raise ModelUnreadable(f"{where} holds what is no number.") from None
    if kind is float and not all(map(math.isfinite, found)):
        raise ModelUnreadable(f"{where} holds a number that is not finite.")
    return found


def _loaded(text: str, header: Header) -> lgb.Booster:
    """The model, having answered for rows of every sort."""
    try:
        booster = lgb.Booster(model_str=text)
        if booster.num_feature() != len(header.names):
            raise ModelUnreadable("LightGBM finds another number of features in the file.")
        random = np.random.default_rng(0)
        rows = random.normal(0.0, 1.0, (_PROBES, len(header.names))) * 10.0 ** random.integers(-3, 7, (_PROBES, 1))
        rows[0], rows[1] = 0.0, math.nan
        for column, info in enumerate(header.infos):
            if info.startswith("["):
                low, high = _range(info)
                rows[2:, column] = random.uniform(low, high, _PROBES - 2)
        predicted, contributions = np.asarray(booster.predict(rows)), np.zeros(0)
        if "\nis_linear=1\n" not in text:  # LightGBM tells contributions of constant leaves only
            contributions = np.asarray(booster.predict(rows[:4], pred_contrib=True))
    except (lgb.basic.LightGBMError, ValueError, OverflowError) as error:
        raise ModelUnreadable(f"LightGBM cannot use the model: {error}") from error
    if not (np.isfinite(predicted).all() and np.isfinite(contributions).all()):
        raise ModelUnreadable("The model predicts what is no number.")
    return booster


def _range(info: str) -> tuple[float, float]:
    try:
        low, high = map(float, info.strip("[]").split(":"))
    except ValueError:
        raise ModelUnreadable(f"The range of a feature is {info[:40]!r}.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high and math.isfinite(high - low)):
        raise ModelUnreadable(f"The range of a feature is {info[:40]!r}.")
    return low, high


def _manifest(booster: lgb.Booster, header: Header, text: str) -> dict[str, Any]:
    categories = _categories(header, text)
    features = [
        {"name": name, "type": _type(info, name in categories), "nullable": True, "model_name": name}
        for name, info in zip(header.names, header.infos, strict=True)
    ]
    labels: list[int] | None = None
    if header.task is Task.BINARY_CLASSIFICATION:
        labels = [0, 1]
    elif header.task is Task.MULTICLASS_CLASSIFICATION:
        labels = list(range(header.classes))
    value = {
        "name": "value",
        "type": "FLOAT" if labels is None else "INTEGER",
        "nullable": False,
        "categories": None if labels is None else [label_text(label) for label in labels],
    }
    inputs = [
        {name: f[name] for name in ("name", "type", "nullable")} | {"categories": categories.get(str(f["name"]))}
        for f in features
    ]
    return {
        "manifest_version": artifact.MANIFEST_VERSION,
        "task": header.task.value,
        "labels": labels,
        "categories": categories,
        "features": features,
        "signature": {"inputs": inputs, "outputs": [value]},
        "importance": {
            kind.upper(): ranked(header.names, booster.feature_importance(kind).astype(np.float64))
            for kind in ("gain", "split")
        },
        "evaluations": [],
        "versions": artifact.versions(),
    }


def _type(info: str, named: bool) -> str:
    """Numbers, texts that pandas kept with the model, or the numbers of categories."""
    if named:
        return "CATEGORY"
    return "FLOAT" if info.startswith("[") or info == "none" else "INTEGER"


def _categories(header: Header, text: str) -> dict[str, list[str]]:
    """The names of categories, where pandas kept them with the model: of the categorical features, in their order."""
    line = next((line for line in text.rsplit("\n", 4)[1:] if line.startswith("pandas_categorical:")), None)
    try:
        kept = orjson.loads(line.partition(":")[2]) if line is not None else None
    except orjson.JSONDecodeError:
        raise ModelUnreadable("The categories at the end of the file cannot be read.") from None
    if not kept:
        return {}
    named = [name for name, info in zip(header.names, header.infos, strict=True) if info[0] not in "[n"]
    if not isinstance(kept, list) or len(kept) != len(named) or not all(isinstance(one, list) for one in kept):
        raise ModelUnreadable("The categories at the end of the file do not match the categorical features.")
    return {name: [label_text(category) for category in one] for name, one in zip(named, kept, strict=True)}


def _params(text: str) -> list[dict[str, Any]]:
    """The parameters that the file names and that training knows; what is not the default counts as chosen."""
    _, _, block = text.partition("\nparameters:\n")
    lines = (line[1:-1] for line in block.split("\n") if line.startswith("[") and line.endswith("]") and ": " in line)
    given: dict[str, str] = dict(line.split(": ", 1) for line in lines)
    params = []
    for name, schema in PARAMETERS.items():
        if name in given:
            value = _value(given[name], schema["type"])
            params.append({"name": name, "value": value, "explicit": value != schema["default"]})
    return params


def _value(text: str, kind: str) -> Any:
    try:
        if kind == "boolean":
            return text in ("1", "true")
        if kind in ("integer", "number"):
            number = float(text)
            return int(number) if kind == "integer" else number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None
    return text
