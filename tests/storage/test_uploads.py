"""Uploads by signed URLs, as a browser or a script does them."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from storage.objects import ObjectMissing, ObjectStore, PartMismatch, StoreSettings, UploadMissing

MINUTE = timedelta(minutes=1)
SMALLEST_PART = 5 << 20


async def put(
    http: httpx.AsyncClient, store: ObjectStore, key: str, upload_id: str, number: int, data: bytes
) -> tuple[int, str]:
    request = store.sign_part(key, upload_id, number, MINUTE)
    answer = await http.request(request.method, request.url, content=data, headers=list(request.headers))
    assert answer.status_code == 200, answer.text
    return number, answer.headers["etag"]


async def test_parts_sent_at_once_and_out_of_order_join_in_the_order_of_their_numbers(store, http, key):
    parts = [os.urandom(SMALLEST_PART), os.urandom(SMALLEST_PART), b"the end"]
    upload_id = await store.start_multipart(key, "text/csv")
    sent = await asyncio.gather(*(put(http, store, key, upload_id, n, parts[n - 1]) for n in (3, 1, 2)))
    assert await store.head(key) is None, "nothing is there before completion"
    await store.complete_multipart(key, upload_id, sent)
    assert await store.read(key) == b"".join(parts)
    found = await store.head(key)
    assert (found.key, found.size_bytes) == (key, 2 * SMALLEST_PART + 7)


async def test_an_interrupted_upload_goes_on_from_the_parts_that_arrived(store, http, key):
    upload_id = await store.start_multipart(key, "text/csv")
    assert await store.list_parts(key, upload_id) == []
    first = await put(http, store, key, upload_id, 1, b"a" * SMALLEST_PART)
    arrived = await store.list_parts(key, upload_id)
    assert [(p.number, p.etag, p.size_bytes) for p in arrived] == [(*first, SMALLEST_PART)]
    await put(http, store, key, upload_id, 2, b"b")
    arrived = await store.list_parts(key, upload_id)
    await store.complete_multipart(key, upload_id, [(part.number, part.etag) for part in arrived])
    assert await store.read_range(key, SMALLEST_PART - 1, SMALLEST_PART + 1) == b"ab"


async def test_a_part_sent_again_replaces_the_first(store, http, key):
    upload_id = await store.start_multipart(key, "text/csv")
    wrong = await put(http, store, key, upload_id, 1, b"wrong")
    part = await put(http, store, key, upload_id, 1, b"right")
    listed = await store.list_parts(key, upload_id)
    assert [held.number for held in listed] == [1]
    assert listed[0].etag in {wrong[1], part[1]}
    await store.complete_multipart(key, upload_id, [part])
    assert await store.read(key) == b"right"


async def test_etags_count_without_their_quotes(store, http, key):
    upload_id = await store.start_multipart(key, "text/csv")
    number, etag = await put(http, store, key, upload_id, 1, b"x")
    await store.complete_multipart(key, upload_id, [(number, etag.strip('"'))])
    assert await store.read(key) == b"x"


async def test_completing_twice_changes_nothing(store, http, key):
    upload_id = await store.start_multipart(key, "text/csv")
    part = await put(http, store, key, upload_id, 1, b"x")
    await store.complete_multipart(key, upload_id, [part])
    before = await store.head(key)
    await store.complete_multipart(key, upload_id, [part])
    assert await store.head(key) == before
    with pytest.raises(PartMismatch, match="completed before, from other parts"):
        await store.complete_multipart(key, upload_id, [(1, "0" * 32)])


WRONG = "0" * 32


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([], "at least one part"),
        ([(1, WRONG), (2, "second")], "part 1 has the ETag"),
        ([(1, "first")], "part 2 is in the store and not in the list"),
        ([(1, "first"), (2, "second"), (3, WRONG)], "part 3 has not arrived"),
        ([(1, "first"), (1, "first"), (2, "second")], "named twice"),
    ],
)
async def test_a_list_that_is_not_what_the_store_holds_is_refused(store, http, key, named, message):
    upload_id = await store.start_multipart(key, "text/csv")
    sent = {
        "first": (await put(http, store, key, upload_id, 1, b"a" * SMALLEST_PART))[1],
        "second": (await put(http, store, key, upload_id, 2, b"b"))[1],
    }
    held = await store.list_parts(key, upload_id)
    with pytest.raises(PartMismatch, match=message):
        await store.complete_multipart(key, upload_id, [(n, sent.get(etag, etag)) for n, etag in named])
    assert await store.head(key) is None
    assert await store.list_parts(key, upload_id) == held


async def test_a_small_part_before_the_last_is_refused(store, http, key):
    upload_id = await store.start_multipart(key, "text/csv")
    sent = [await put(http, store, key, upload_id, n, b"small") for n in (1, 2)]
    with pytest.raises(PartMismatch, match="EntityTooSmall"):
        await store.complete_multipart(key, upload_id, sent)
    assert await store.head(key) is None


async def test_an_aborted_upload_is_gone_and_can_be_aborted_again(store, http, key):
    upload_id = await store.start_multipart(key, "text/csv")
    part = await put(http, store, key, upload_id, 1, b"x")
    await store.abort_multipart(key, upload_id)
    await store.abort_multipart(key, upload_id)
    with pytest.raises(UploadMissing):
        await store.list_parts(key, upload_id)
    with pytest.raises(UploadMissing):
        await store.complete_multipart(key, upload_id, [part])
    late = store.sign_part(key, upload_id, 2, MINUTE)
    assert (await http.put(late.url, content=b"late")).status_code == 404
    assert await store.head(key) is None


async def test_a_url_signed_with_another_key_is_refused(store, wrong_key, http, key):
    upload_id = await store.start_multipart(key, "text/csv")
    forged = wrong_key.sign_part(key, upload_id, 1, MINUTE)
    answer = await http.put(forged.url, content=b"x")
    assert (answer.status_code, "SignatureDoesNotMatch" in answer.text) == (403, True)
    assert await store.list_parts(key, upload_id) == []


@pytest.mark.parametrize(("signed", "wanted"), [("partNumber=1", "partNumber=2"), ("/tests/", "/other/")])
async def test_a_url_is_good_for_what_was_signed_and_nothing_else(store, http, key, signed, wanted):
    upload_id = await store.start_multipart(key, "text/csv")
    url = store.sign_part(key, upload_id, 1, MINUTE).url
    assert (await http.put(url.replace(signed, wanted), content=b"x")).status_code == 403
    assert await store.list_parts(key, upload_id) == []


async def test_an_expired_url_is_refused(store, http, key, monkeypatch):
    upload_id = await store.start_multipart(key, "text/csv")
    two_minutes_ago = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - 2 * MINUTE
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: two_minutes_ago)
    old = store.sign_part(key, upload_id, 1, MINUTE)
    assert old.expires_at == two_minutes_ago.replace(tzinfo=UTC) + MINUTE
    answer = await http.put(old.url, content=b"x")
    assert answer.status_code == 403
    assert "expired" in answer.text.lower()
    assert await store.list_parts(key, upload_id) == []


async def test_a_download_is_saved_under_its_name_and_never_displayed(store, http, key):
    await store.write(key, b"a,b\n1,2\n", "application/octet-stream")
    signed = store.sign_get(key, expires_in=MINUTE, file_name='Zahlen "ü"\n.csv', content_type="text/csv")
    answer = await http.get(signed.url)
    assert (answer.status_code, answer.content) == (200, b"a,b\n1,2\n")
    assert answer.headers["content-type"] == "text/csv"
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"Zahlen ____.csv\"; filename*=UTF-8''Zahlen%20%22%C3%BC%22%0A.csv"
    )


async def test_a_browser_of_another_origin_may_upload_and_read_the_etag(store, http, key):
    upload_id = await store.start_multipart(key, "text/csv")
    signed = store.sign_part(key, upload_id, 1, MINUTE)
    page = {"Origin": "https://headai.example"}
    asked = await http.options(signed.url, headers={**page, "Access-Control-Request-Method": "PUT"})
    assert asked.status_code == 200
    assert "PUT" in asked.headers["access-control-allow-methods"]
    answer = await http.put(signed.url, content=b"x", headers=page)
    assert answer.headers["access-control-allow-origin"] in {"*", page["Origin"]}
    assert "ETag" in answer.headers["access-control-expose-headers"]


async def test_signed_urls_name_the_public_address(settings: StoreSettings, key):
    public = StoreSettings(
        endpoint_url=settings.endpoint_url,
        public_url="https://data.headai.example/",
        region="eu-central-1",
        access_key="key",
        secret_key="hidden",
        bucket="headai",
    )
    async with ObjectStore.open(public) as store:
        signed = store.sign_part(key, "an upload/1", 7, timedelta(minutes=15))
    start = f"https://data.headai.example/headai/{key}?partNumber=7&uploadId=an%20upload%2F1&X-Amz-"
    assert signed.url.startswith(start)
    assert "X-Amz-Expires=900" in signed.url
    assert (signed.method, signed.headers) == ("PUT", ())
    assert "hidden" not in repr(public)
    assert "Signature" not in repr(signed)


@pytest.mark.parametrize("life", [timedelta(0), timedelta(days=7, seconds=1), -MINUTE])
async def test_a_life_the_protocol_does_not_know_is_an_error(store, key, life):
    with pytest.raises(ValueError, match="from 1 second to 7 days"):
        store.sign_part(key, "upload", 1, life)


@pytest.mark.parametrize("number", [0, 10_001])
async def test_a_part_number_the_protocol_does_not_know_is_an_error(store, key, number):
    with pytest.raises(ValueError, match="from 1 to 10000"):
        store.sign_part(key, "upload", number, MINUTE)


async def test_no_parts_of_a_missing_upload(store, key):
    with pytest.raises(UploadMissing):
        await store.list_parts(key, "neverstarted")
    with pytest.raises(ObjectMissing):
        await store.read(key)
