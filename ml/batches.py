"""Predict every row of a Parquet file in bounded memory, in two steps that each can be begun again.

First the predictions alone, in parts: small files that the next attempt goes on after. Then one pass that puts them
beside the rows they are of. A value is the one `Booster.predict` gives; a row whose category the model has not met has
no prediction and counts as failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml import artifact
from ml.children import Control
from ml.evaluation import choose, label_text
from ml.messages import BatchJob, DescribedColumn, Joined, JoinJob, PartDone, RowsDone
from ml.preparation import Feature, Floats, column_type, encode, numbers

ROWS_AT_ONCE = 16_384
CELLS_AT_ONCE = 4_000_000
ROWS_A_GROUP = 131_072


class TableModel:
    """A model that predicts rows of tables. Load it in a child process: a damaged text can end the process."""

    def __init__(self, booster: lgb.Booster, manifest: dict[str, Any]) -> None:
        categories = manifest["categories"]
        self.booster = booster
        self.manifest = manifest
        self.features = tuple(
            Feature(
                f["name"],
                f["type"],
                f["nullable"],
                f["model_name"],
                tuple(categories[f["name"]]) if f["name"] in categories else None,
            )
            for f in manifest["features"]
        )
        self.labels: list[Any] | None = manifest["labels"]

    @classmethod
    def load(cls, folder: str | Path, sha256: str) -> TableModel:
        """Raises `DigestMismatch` and `ModelUnreadable`, as `artifact.load`."""
        return cls(*artifact.load(folder, sha256))

    @property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @property
    def rows_at_once(self) -> int:
        """So many rows that their values take a few dozen MB."""
        outputs = len(self.labels) if self.labels is not None and len(self.labels) > 2 else 1
        return max(1024, min(ROWS_AT_ONCE, CELLS_AT_ONCE // (len(self.features) + outputs)))

    def matrix(self, table: pa.Table) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Rows as `Booster.predict` takes them, NaN where missing; and which rows hold a category never met."""
        strange = np.zeros(len(table), dtype=np.bool_)
        values = np.empty((len(table), len(self.features)))
        for at, feature in enumerate(self.features):
            column = table[feature.name]
            encoded = encode(column, feature)
            values[:, at] = numbers(encoded)
            if feature.categories is not None and encoded.null_count > column.null_count:
                strange |= np.asarray(pc.and_(pc.is_null(encoded), pc.is_valid(column)).to_numpy())
        return values, strange


def predict_in_child(control: Control, job: BatchJob) -> None:
    """Predict from row `job.start` to the last; reports `PartDone` for every file and `RowsDone` on the way."""
    model = TableModel.load(job.model, job.sha256)
    folder = Path(job.parts)
    folder.mkdir(parents=True, exist_ok=True)
    total = pq.read_metadata(job.data).num_rows
    done, waiting, begun = job.start, [], time.monotonic()
    for table in rows_of(job.data, model.names, start=job.start, rows_at_once=model.rows_at_once):
        waiting.append(_predicted(model, table, job))
        done += len(table)
        control.report(RowsDone(done, total))
        if done == total or time.monotonic() - begun >= job.part_seconds:
            control.report(_written(pa.concat_tables(waiting), folder / f"{done:015}.parquet"))
            waiting, begun = [], time.monotonic()


def _predicted(model: TableModel, table: pa.Table, job: BatchJob) -> pa.Table:
    """`outcome` is the value, or the index of the label; `p0`, `p1`... are the probabilities, if asked for."""
    values, strange = model.matrix(table)
    predicted = np.asarray(model.booster.predict(values, num_threads=job.threads))
    outcome = predicted if model.labels is None else choose(predicted).astype(np.int32)
    columns = {"outcome": pa.array(outcome, mask=strange)}
    if job.probabilities and model.labels is not None:
        shares = np.column_stack([1.0 - predicted, predicted]) if predicted.ndim == 1 else predicted
        for index in range(shares.shape[1]):
            columns[f"p{index}"] = pa.array(np.ascontiguousarray(shares[:, index]), mask=strange)
    return pa.table(columns)


def _written(predictions: pa.Table, path: Path) -> PartDone:
    pq.write_table(predictions, path, compression="none")
    return PartDone(str(path), artifact.sha256_of(path), len(predictions), predictions["outcome"].null_count)


def rows_of(path: str, names: list[str] | None, *, start: int, rows_at_once: int) -> Iterator[pa.Table]:
    """Columns of a Parquet file (None: all) from a row on, piece by piece; row groups before it are not read."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        groups, before = [], 0
        skip = start
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if before + rows > start:
                groups.append(group)
            else:
                skip -= rows
            before += rows
        if not groups:
            return
        for batch in file.iter_batches(batch_size=rows_at_once, row_groups=groups, columns=names):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield pa.Table.from_batches([batch.slice(skip)])
            skip = 0


def join_in_child(control: Control, job: JoinJob) -> Joined:
    """Write rows and predictions side by side, then describe what was added; reports `RowsDone` on the way."""
    from ml.formats import ColumnInfo, ColumnType
    from ml.profiling import profile  # DuckDB: only this step needs it

    model = TableModel.load(job.model, job.sha256)
    total, written = pq.read_metadata(job.data).num_rows, 0
    labels = None if model.labels is None else pa.array(model.labels)
    value_type = pa.float64() if labels is None else labels.type
    names = _names_beside(list(job.columns), model, probabilities=job.probabilities)
    added = pa.schema([(names[0], value_type), *((name, pa.float64()) for name in names[1:])])
    held = pq.read_schema(job.data).remove_metadata()
    schema = pa.schema([*(held.field(name) for name in job.columns), *added])
    group_rows = max(1024, min(ROWS_A_GROUP, CELLS_AT_ONCE // len(schema)))
    rows = _Pieces(rows_of(job.data, list(job.columns), start=0, rows_at_once=group_rows))
    alone = Path(job.scratch) / "added.parquet"
    with _writer(Path(job.output), schema) as writer, _writer(alone, added) as beside:
        for part in job.parts:
            for predictions in rows_of(part, None, start=0, rows_at_once=group_rows):
                outcome, *shares = predictions.columns
                value = outcome if labels is None else labels.take(outcome.combine_chunks())
                new = pa.table([value, *shares], schema=added)
                table = rows.take(len(new))
                joined = pa.table([*table.columns, *new.columns], schema=schema)
                writer.write_table(joined.unify_dictionaries(), row_group_size=group_rows)
                beside.write_table(new, row_group_size=group_rows)
                written += len(new)
                control.report(RowsDone(written, total))
    if written != total:
        raise ValueError(f"{total} rows have {written} predictions.")
    infos = [ColumnInfo(field.name, at, ColumnType(column_type(field.type)), True) for at, field in enumerate(added)]
    profiles = profile(alone, infos, scratch=Path(job.scratch), memory_limit_mb=job.memory_limit_mb)
    return Joined(
        row_count=total,
        size_bytes=Path(job.output).stat().st_size,
        sha256=artifact.sha256_of(job.output),
        added=tuple(
            DescribedColumn(info.name, info.type.value, described["null_count"] > 0, described)
            for info, described in zip(infos, profiles, strict=True)
        ),
    )


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Dictionaries for what is no number: of measured numbers nearly each is another one, and looking is slow."""
    repeated = [f.name for f in schema if not (pa.types.is_floating(f.type) or pa.types.is_decimal(f.type))]
    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True, use_dictionary=repeated)


class _Pieces:
    """Rows that come in pieces of one length, and are taken in pieces of another."""

    def __init__(self, pieces: Iterator[pa.Table]) -> None:
        self._pieces = pieces
        self._left: pa.Table | None = None

    def take(self, count: int) -> pa.Table:
        taken = []
        while count:
            if self._left is None or len(self._left) == 0:
                self._left = next(self._pieces)
            piece = self._left.slice(0, count)
            self._left = self._left.slice(len(piece))
            taken.append(piece)
            count -= len(piece)
        return pa.concat_tables(taken)


def _names_beside(held: list[str], model: TableModel, *, probabilities: bool) -> list[str]:
    """`prediction` and `probability_<label>`, numbered where the data has a column of that name."""
    wanted = ["prediction"]
    if probabilities and model.labels is not None:
        wanted += [f"probability_{label_text(label)}" for label in model.labels]
    taken, names = set(held), []
    for base in wanted:
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names.append(name)
    return names
