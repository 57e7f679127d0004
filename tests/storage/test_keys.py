"""Object keys, whatever the ids and paths."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some

from storage.keys import artifact_key, attempt_prefix, data_key, data_prefix, model_key, model_prefix, upload_key

ONE, TWO = UUID(int=1), UUID(int=2)
PATHS = some.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}(/[a-z0-9][a-z0-9._-]{0,20}){0,3}", fullmatch=True)
IDS = some.tuples(some.uuids(), some.uuids())


def test_each_kind_has_its_place():
    one, two = f"{1:032x}", f"{2:032x}"
    assert upload_key(ONE, TWO) == f"uploads/{one}/{two}"
    assert data_key(ONE, TWO, ONE) == f"datasets/{one}/{two}/{one}.parquet"
    assert artifact_key(ONE, 3, "checkpoints/000020.txt") == f"runs/{one}/0003/checkpoints/000020.txt"
    assert model_key(ONE, TWO, "model.txt") == f"models/{one}/{two}/model.txt"


@pytest.mark.parametrize(
    "path", ["", "/", "a/", "/a", "a//b", "..", "a/../b", "A.txt", "ü", "a b", "a\n", "a\x00", "x" * 201]
)
def test_a_path_of_any_other_form_is_refused(path):
    with pytest.raises(ValueError, match="no artifact path"):
        artifact_key(ONE, 1, path)
    with pytest.raises(ValueError, match="no artifact path"):
        model_key(ONE, TWO, path)


@pytest.mark.parametrize("attempt", [-1, 10_000])
def test_an_attempt_out_of_range_is_refused(attempt):
    with pytest.raises(ValueError, match="numbered from 0 to 9999"):
        attempt_prefix(ONE, attempt)


@given(some.text())
def test_no_text_gets_a_key_out_of_its_attempt(path):
    try:
        key = artifact_key(ONE, 1, path)
    except ValueError:
        return
    assert key == f"{attempt_prefix(ONE, 1)}/{path}"
    assert ".." not in key.split("/")
    assert not key.endswith("/")
    assert key.isascii()


@given(some.lists(IDS, min_size=2, max_size=2, unique=True), PATHS)
def test_different_things_have_different_keys_and_no_common_prefix(ids, path):
    for name in (upload_key, data_prefix, model_prefix):
        first, second = (name(*pair) for pair in ids)
        assert not first.startswith(second)
    first, second = (model_key(*pair, path) for pair in ids)
    assert first != second


@given(some.integers(0, 9999), some.integers(0, 9999), PATHS)
def test_the_prefix_of_an_attempt_lists_that_attempt_alone(one, other, path):
    assert artifact_key(ONE, one, path).startswith(attempt_prefix(ONE, other)) == (one == other)
