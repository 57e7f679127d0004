"""The four questions that are asked of Head AI and of its peers: the documents, and how often each is asked."""

from dataclasses import dataclass

VIEWER_MAY = "DATASET_UPDATE"
DATASETS = 100
NESTED_DATASETS, VERSIONS, RUNS = 50, 5, 5
SERIES, POINTS = 20, 500


@dataclass(frozen=True, slots=True)
class Question:
    """`path` is where the bare peer answers it; `requests` how many a round has, by the number of clients."""

    name: str
    path: str
    document: str
    requests: dict[int, int]


LIST = Question(
    name=f"{DATASETS} datasets",
    path="/datasets",
    document="""
query Datasets {
  datasets(first: 100) {
    nodes { id name description createdAt updatedAt revision }
    pageInfo { hasNextPage }
  }
}""",
    requests={1: 200, 16: 400},
)

NESTED = Question(
    name=f"{NESTED_DATASETS} datasets, owner and roles, {VERSIONS} versions of {RUNS} runs each",
    path="/nested",
    document="""
query Nested {
  datasets(first: 50) {
    nodes {
      id
      name
      createdBy { ... on User { id username displayName } }
      viewerCan(permission: DATASET_UPDATE) { allowed decidedBy { id role { id name } } }
      versions(first: 5) {
        nodes {
          id
          number
          status
          rowCount
          usedByRuns(first: 5) { nodes { id name status createdAt } }
        }
      }
    }
  }
}""",
    requests={1: 30, 16: 48},
)

OBJECTS = Question(
    name=f"{SERIES * POINTS:,} points as objects",
    path="/objects",
    document="""
query Objects($run: ID!) {
  metricSeries(filter: {runId: $run}, first: 20) {
    nodes { id name data(downsample: {maxPoints: 500, method: NONE}) { points(limit: 500) { step value } } }
  }
}""",
    requests={1: 12, 16: 32},
)

COLUMNS = Question(
    name=f"{SERIES * POINTS:,} points as columns",
    path="/columns",
    document="""
query Columns($run: ID!) {
  metricSeries(filter: {runId: $run}, first: 20) {
    nodes { id name data(downsample: {maxPoints: 500, method: NONE}) { columns { step value } } }
  }
}""",
    requests={1: 60, 16: 96},
)

QUESTIONS = (LIST, NESTED, OBJECTS, COLUMNS)
