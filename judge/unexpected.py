"""What Schemathesis counts as a fault of the server: loaded as its hooks, in the environment of `requirements.lock`.

Schemathesis makes up operations, right and wrong ones. A refusal is an answer; a fault of ours, an error without a
code, a broken promise of the schema and a trace of what is inside are not.
"""

import schemathesis
from graphql import NameNode, ObjectFieldNode, ValueNode
from hypothesis import strategies as st
from hypothesis_graphql import nodes

REFUSALS = {"BAD_REQUEST", "FORBIDDEN", "COST_LIMIT", "RATE_LIMITED"}
LEAKS = ("Traceback (most recent", "sqlalchemy", "asyncpg", "site-packages", "SELECT ", "INSERT INTO")


def _object(fields: dict[str, ValueNode]) -> ValueNode:
    return nodes.Object([ObjectFieldNode(name=NameNode(value=name), value=value) for name, value in fields.items()])


def _vector(of: st.SearchStrategy[ValueNode]) -> st.SearchStrategy[ValueNode]:
    return st.lists(of, max_size=4).map(nodes.List)


_MOMENTS = st.datetimes().map(lambda moment: nodes.String(f"{moment.isoformat()}Z"))
_TEXTS = st.text(max_size=20).map(nodes.String)
_INTEGERS = st.integers(-(2**31), 2**31 - 1).map(nodes.Int)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(nodes.Float)
_JSON = st.one_of(_TEXTS, st.booleans().map(nodes.Boolean), _INTEGERS)
SCALARS = {
    "BigInt": st.integers(-(2**63), 2**63 - 1).map(lambda number: nodes.String(str(number))),
    "DateTime": _MOMENTS,
    "Duration": st.integers(0, 10**6).map(lambda seconds: nodes.String(f"PT{seconds}S")),
    "FloatVector": _vector(_FLOATS),
    "IntVector": _vector(_INTEGERS),
    "JSON": _JSON,
    "JSONObject": st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), _JSON, max_size=3).map(_object),
    "SHA256": st.from_regex(r"[0-9a-f]{64}", fullmatch=True).map(nodes.String),
    "TimestampVector": _vector(_INTEGERS),
    "URL": st.just(nodes.String("https://example.com/")),
}
for name, values in SCALARS.items():
    schemathesis.graphql.scalar(name, values)


@schemathesis.check
def no_unexpected_error(ctx, response, case) -> None:
    assert response.status_code in (200, 400), f"status {response.status_code}"
    kind = response.headers["content-type"][0].partition(";")[0]
    assert kind in ("application/json", "application/graphql-response+json"), f"content type {kind}"
    answer = response.json()
    for error in answer.get("errors", ()):
        code = error.get("extensions", {}).get("code")
        assert code in REFUSALS, f"{code}: {error['message']}"
    assert answer.get("errors") or answer["data"] is not None, "neither data nor errors"
    text = response.text
    assert not any(leak in text for leak in LEAKS), text[:500]
