"""What tests of metrics ask, and what they send."""

from uuid import UUID

INGEST = """
mutation ($input: IngestMetricsInput!) {
  ingestMetrics(input: $input) {
    accepted duplicates rejected { series index code message }
    errors { __typename code message path ... on ValidationError { allowed } ... on NotFoundError { id } }
  }
}
"""
QUERY = """
query ($input: MetricQueryInput!) {
  metricQuery(input: $input) {
    truncated cursor
    groups {
      name labels { name value } run { id name }
      data {
        columns { step at value min max count } totalPoints returnedPoints downsampled method resolution
      }
    }
  }
}
"""
SERIES = """
query ($filter: MetricSeriesFilter, $first: Int, $after: String) {
  metricSeries(filter: $filter, first: $first, after: $after) {
    totalCount
    pageInfo { hasNextPage endCursor }
    nodes {
      id name scope kind unit labels { name value } pointCount firstAt lastAt
      lastPoint { step at value nonFinite } project { slug } run { name }
    }
  }
}
"""
LIVE = """
subscription ($selector: MetricSelectorInput!, $after: String, $rate: Float) {
  metricPoints(selector: $selector, after: $after, maxUpdatesPerSecond: $rate) {
    cursor kind droppedPoints
    series { seriesId name runId labels { name value } columns { step at value min max count } }
  }
}
"""
SUMMARY = """
query ($id: ID!, $names: [String!]) {
  trainingRun(id: $id) {
    metricNames
    summary(names: $names) {
      name unit count min max mean
      last { step at value nonFinite } best { step at value nonFinite }
    }
  }
}
"""
EVERYTHING = {"scope": "RUN", "names": ["*"]}
WHOLE = {"steps": {"from": 0}}


def gid(kind: str, key: UUID) -> str:
    return f"{kind}_{key.hex}"


def curve(run, **more):
    return {
        "runId": gid("run", run.id),
        "name": "valid.auc",
        "steps": [0, 1, 2],
        "at": [1_700_000_000_000, 1_700_000_001_000, 1_700_000_002_000],
        "values": [0.5, 0.75, 0.625],
        **more,
    }
