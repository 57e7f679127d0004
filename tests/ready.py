"""Dataset versions that are READY, put into the database and the store as processing leaves them."""

import asyncio
import hashlib
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer
from sqlalchemy import insert

from db.database import Database
from db.ids import new_id
from db.rows import Project
from db.tables import dataset_columns, dataset_versions, datasets
from ml.preparation import column_type
from storage.keys import data_key
from storage.objects import ObjectStore


def cancer(*, repeat: int = 1) -> pa.Table:
    """Breast cancer: 30 features and the target `diagnosis`; `repeat` times over, to take a while."""
    bunch = load_breast_cancer()
    columns = {str(name): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)}
    diagnosis = [str(bunch.target_names[value]) for value in bunch.target]
    table = pa.table(columns | {"diagnosis": diagnosis, "site": ["here"] * len(diagnosis)})
    return pa.concat_tables([table] * repeat)


async def ready_version(
    db: Database, store: ObjectStore, project: Project, folder: Path, table: pa.Table, *, status: str = "READY"
) -> UUID:
    dataset_id, version_id = new_id(), new_id()
    path, key = folder / f"{version_id.hex}.parquet", data_key(dataset_id, version_id, new_id())
    await asyncio.to_thread(pq.write_table, table, path)
    content = await asyncio.to_thread(path.read_bytes)
    await store.upload_file(path, key, "application/vnd.apache.parquet")
    async with db.transaction() as session:
        await session.run(insert(datasets).values(id=dataset_id, project_id=project.id, name=f"data-{dataset_id.hex}"))
        await session.run(
            insert(dataset_versions).values(
                id=version_id,
                dataset_id=dataset_id,
                number=1,
                status=status,
                progress={"fraction": 1.0, "phase": "ready"},
                format="PARQUET",
                digest=hashlib.sha256(content).hexdigest(),
                size_bytes=len(content),
                row_count=len(table),
                column_count=table.num_columns,
                source={"kind": "UPLOAD"},
                data_key=key,
            )
        )
        for position, field in enumerate(table.schema):
            column = table[field.name]
            await session.run(
                insert(dataset_columns).values(
                    id=new_id(),
                    version_id=version_id,
                    name=field.name,
                    position=position,
                    type=column_type(field.type),
                    nullable=True,
                    role="FEATURE",
                    profile={
                        "count": len(column) - column.null_count,
                        "null_count": column.null_count,
                        "distinct_count": len(column.drop_null().unique()),
                        "distinct_count_is_estimate": False,
                        "top_values": [],
                    },
                )
            )
    return version_id
