"""One statement a level, however many parents there are: 50 datasets × 5 versions × 5 runs."""

import pytest
from sqlalchemy import insert

from db.ids import new_id
from db.tables import datasets

QUERY = """
query ($first: Int!) {
  datasets(first: $first, orderBy: {field: NAME, direction: ASC}) {
    nodes {
      name
      project { slug }
      createdBy { ... on User { username } }
      versions(first: 5) {
        nodes {
          number
          usedByRuns(first: 5) { nodes { name status createdBy { ... on User { username } } project { slug } } }
        }
      }
    }
  }
}
"""
PROGRESS = {"fraction": None, "phase": None}
RUN = ("QUEUED", PROGRESS, "REGRESSION", "LIGHTGBM", {}, [])


@pytest.fixture
async def world(db, admin, project):
    """Fifty datasets with seven versions each, every version used by six runs."""
    made = [(new_id(), f"d{number:02}") for number in range(50)]
    versions = [(new_id(), dataset, number) for dataset, _ in made for number in range(1, 8)]
    async with db.transaction() as session:
        for id, name in made:
            await session.run(
                insert(datasets).values(id=id, project_id=project.id, name=name, created_by=admin.user_id)
            )
        await session.connection.copy_records_to_table(
            "dataset_versions",
            records=[(id, dataset, n, "READY", PROGRESS, "CSV", {"kind": "UPLOAD"}) for id, dataset, n in versions],
            columns=["id", "dataset_id", "number", "status", "progress", "format", "source"],
        )
        await session.connection.copy_records_to_table(
            "training_runs",
            records=[
                (new_id(), project.id, f"{id.hex}-{n}", *RUN, id, admin.user_id)
                for id, *_ in versions
                for n in range(6)
            ],
            columns=[
                "id", "project_id", "name", "status", "progress", "task", "algorithm", "spec", "params",
                "dataset_version_id", "created_by",
            ],
        )  # fmt: skip


@pytest.mark.parametrize("first", [1, 50])
async def test_a_nested_query_is_one_statement_a_level(execute, admin, world, statements, first):
    with statements() as seen:
        answer = await execute(QUERY, principal=admin, first=first)

    assert "errors" not in answer
    nodes = answer["data"]["datasets"]["nodes"]
    assert [node["name"] for node in nodes] == [f"d{number:02}" for number in range(first)]
    assert all([version["number"] for version in node["versions"]["nodes"]] == [7, 6, 5, 4, 3] for node in nodes)
    runs = [version["usedByRuns"]["nodes"] for node in nodes for version in node["versions"]["nodes"]]
    assert {len(some) for some in runs} == {5}
    assert runs[0][0]["createdBy"] == {"username": "ada"}
    assert runs[0][0]["project"] == {"slug": "lab"}
    assert len(seen) == 5, "datasets, projects, users, versions, runs"
