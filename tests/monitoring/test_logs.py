"""Log lines as operators get them: one format, whoever logs, and no secrets."""

import io
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from monitoring import logs
from monitoring.secrets import is_secret, without_secrets

WATCHED = ("", "uvicorn.access", *logs.CHATTY, *logs.WITH_HANDLERS_OF_THEIR_OWN)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in WATCHED]
    configured = structlog.get_config()
    before = [(log.level, log.handlers[:], log.propagate, log.disabled) for log in loggers]
    yield
    for logger, (level, handlers, propagate, disabled) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate, logger.disabled = propagate, disabled
    structlog.configure(**configured)


@pytest.fixture
def written() -> io.StringIO:
    stream = io.StringIO()
    logs.configure(style="json", stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    found = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    for line in found:
        assert line.pop("timestamp").endswith("Z")
    return found


def test_our_line_and_a_library_line_have_the_same_form(written):
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("headai.runs").info("run started", run="run_1", rounds=20)
        logging.getLogger("pgqueuer").warning("job %s is late", 7, extra={"queue": "train"})
    assert lines(written) == [
        {
            "event": "run started",
            "level": "info",
            "logger": "headai.runs",
            "request_id": "r1",
            "rounds": 20,
            "run": "run_1",
        },
        {
            "event": "job 7 is late",
            "level": "warning",
            "logger": "pgqueuer",
            "queue": "train",
            "request_id": "r1",
        },
    ]


def test_libraries_lose_their_own_handlers_and_uvicorn_its_access_line():
    own = io.StringIO()
    handler = logging.StreamHandler(own)
    logging.getLogger("uvicorn").addHandler(handler)
    stream = io.StringIO()
    logs.configure(style="json", stream=stream)
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.access").info("GET /graphql?token=x")
    assert own.getvalue() == ""
    assert [line["event"] for line in lines(stream)] == ["Started server process"]


def test_configuring_again_replaces_what_was_set_up(written):
    other = io.StringIO()
    logs.configure(style="json", level="WARNING", stream=other)
    structlog.get_logger().info("too low")
    structlog.get_logger().warning("once")
    assert written.getvalue() == ""
    assert [line["event"] for line in lines(other)] == ["once"]


def test_libraries_that_would_show_signatures_are_held_at_warning():
    stream = io.StringIO()
    logs.configure(style="json", level="DEBUG", stream=stream)
    logging.getLogger("botocore.auth").debug("Signature: abc")
    assert stream.getvalue() == ""


def test_secrets_are_dropped_at_any_depth(written):
    structlog.get_logger("a").info(
        "signed in",
        password="p",
        user={"name": "ada", "refreshToken": "t", "sessions": [{"authorization": "Bearer x", "id": 1}]},
    )
    logging.getLogger("b").info("from a library", extra={"headers": {"Cookie": "c", "Accept": "*/*"}})
    first, second = lines(written)
    assert first["user"] == {"name": "ada", "sessions": [{"id": 1}]}
    assert "password" not in first
    assert second["headers"] == {"Accept": "*/*"}


def test_secrets_inside_texts_and_tracebacks_are_masked(written):
    try:
        raise ValueError("cannot reach postgresql://headai:hunter2@db/headai")
    except ValueError:
        logging.getLogger("b").exception("no database, sent %s", "Bearer abc.def")
    (line,) = lines(written)
    assert line["event"] == "no database, sent Bearer ***"
    assert line["exception"].endswith("ValueError: cannot reach postgresql://headai:***@db/headai")
    assert "hunter2" not in written.getvalue()


def test_the_console_style_is_for_people_and_keeps_secrets_too():
    stream = io.StringIO()
    logs.configure(style="console", stream=stream)
    structlog.get_logger("headai").info("ready", port=8000, password="hunter2")
    assert "ready" in stream.getvalue()
    assert "port=8000" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("password", True),
        ("refreshToken", True),
        ("X-Api-Key", True),
        ("s3_secret_key", True),
        ("AUTHORIZATION", True),
        ("username", False),
        ("key", False),
        ("path", False),
    ],
)
def test_what_counts_as_a_secret(key, expected):
    assert is_secret(key) is expected


def test_data_that_refers_to_itself_ends():
    loop: dict[str, object] = {"token": "t"}
    loop["self"] = loop
    cleaned = without_secrets({"inside": loop, "url": "http://s/b?X-Amz-Signature=ab12&x=1", "raw": b"abc"})
    assert cleaned["url"] == "http://s/b?X-Amz-Signature=***&x=1"
    assert cleaned["raw"] == "<3 bytes>"
    assert "token" not in cleaned["inside"]
