"""The numbers at /metrics."""

from prometheus_client.parser import text_string_to_metric_families

from monitoring.metrics import BoundedLabel, Metrics, exposition


def sample(metrics: Metrics, series: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(series, labels)


def test_operations_are_counted_and_timed():
    metrics = Metrics()
    for seconds in (0.00390625, 0.25):
        metrics.operation_ended(name="Runs", kind="query", outcome="ok", seconds=seconds, statements=3)
    metrics.operation_ended(name=None, kind="mutation", outcome="refused", seconds=1, statements=0)
    assert sample(metrics, "headai_operations_total", name="Runs", kind="query", outcome="ok") == 2
    refused = {"name": "anonymous", "kind": "mutation", "outcome": "refused"}
    assert sample(metrics, "headai_operations_total", **refused) == 1
    seconds = {"name": "Runs", "kind": "query"}
    assert sample(metrics, "headai_operation_seconds_sum", **seconds) == 0.25390625
    assert sample(metrics, "headai_operation_seconds_bucket", **seconds, le="0.005") == 1
    assert sample(metrics, "headai_operation_statements_sum", kind="query") == 6


def test_names_that_callers_make_up_cannot_grow_a_scrape():
    metrics = Metrics(names=3)
    for number in range(100):
        metrics.operation_ended(name=f"N{number}", kind="query", outcome="ok", seconds=0, statements=0)
    assert sample(metrics, "headai_operations_total", name="other", kind="query", outcome="ok") == 97
    assert sample(metrics, "headai_operations_total", name="N2", kind="query", outcome="ok") == 1
    assert sample(metrics, "headai_operations_total", name="N3", kind="query", outcome="ok") is None


def test_a_bounded_label_keeps_the_first_values():
    label = BoundedLabel(2)
    assert [label(value) for value in "abcab"] == ["a", "b", "other", "a", "b"]


def test_everything_else_that_is_counted():
    metrics = Metrics()
    metrics.statement_sent()
    metrics.connection_opened("websocket")
    metrics.connection_opened("websocket")
    metrics.connection_closed("websocket")
    metrics.events_delivered("metricPoints", 5)
    metrics.points_ingested("accepted", 1000)
    metrics.job_ended(job="train", outcome="failed", seconds=3)
    metrics.runs_counted({"RUNNING": 2, "QUEUED": 1})
    metrics.runs_counted({"RUNNING": 1})
    assert sample(metrics, "headai_statements_total") == 1
    assert sample(metrics, "headai_subscription_connections_open", transport="websocket") == 1
    assert sample(metrics, "headai_events_delivered_total", stream="metricPoints") == 5
    assert sample(metrics, "headai_points_ingested_total", outcome="accepted") == 1000
    assert sample(metrics, "headai_worker_jobs_total", job="train", outcome="failed") == 1
    assert sample(metrics, "headai_worker_job_seconds_sum", job="train") == 3
    assert sample(metrics, "headai_runs", status="RUNNING") == 1
    assert sample(metrics, "headai_runs", status="QUEUED") is None


def test_the_exposition_is_what_prometheus_reads():
    body, content_type = exposition()
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert {"headai_statements", "process_cpu_seconds", "python_info"} <= names
    assert content_type.startswith("text/plain; version=")
