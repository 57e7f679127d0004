"""The object store: one long-lived S3 client a process, with answers or a typed error in bounded time.

A store that is gone answers `StoreUnavailable` within seconds and is used again as soon as it is back;
nothing has to be reopened. Checksums that newer clients add on their own are sent only where the protocol
requires them, because servers disagree about them; our digests are SHA-256 over whole files, in PostgreSQL.
"""

import asyncio
import hashlib
import io
import ipaddress
import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from storage.signing import SignedRequest, Signer, attachment

MIB = 1 << 20
PART_BYTES = 8 * MIB
PARTS_AT_ONCE = 4
MOST_PARTS = 10_000

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 10.0
"""The longest a store may send nothing while it owes us bytes."""
QUESTION_SECONDS = 5.0
"""The longest a request without a body may take, retry included."""
TRANSFER_SECONDS = 60.0
"""The longest one part (8 MiB) may take on its way to the store, and the store to join parts."""

CORS_RULE = {
    "AllowedMethods": ["GET", "HEAD", "PUT"],
    "AllowedOrigins": ["*"],
    "AllowedHeaders": ["*"],
    "ExposeHeaders": ["ETag", "Content-Length", "Content-Range", "Content-Disposition"],
    "MaxAgeSeconds": 3600,
}

_BAD_PARTS = {"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "MalformedXML", "InvalidRequest"}
_BAD_SETTINGS = {
    "AccessDenied": "the access key may not do this",
    "AuthorizationHeaderMalformed": "the region is wrong",
    "InvalidAccessKeyId": "the access key is unknown there",
    "NoSuchBucket": "the bucket does not exist",
    "PermanentRedirect": "the bucket is in another region",
    "RequestTimeTooSkewed": "the clocks of the two machines disagree",
    "SignatureDoesNotMatch": "the secret key is wrong",
}
_BUSY = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}

log = logging.getLogger(__name__)


class StoreUnavailable(Exception):
    """The store cannot be used right now: unreachable, slow, failing, or set up wrongly. Worth a retry."""


class ObjectMissing(Exception):
    """There is no object at this key."""


class UploadMissing(Exception):
    """There is no open multipart upload of this id: it was aborted, or never started."""


class PartMismatch(Exception):
    """The parts named at completion are not the parts in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where objects live: AWS unless `endpoint_url` is given; `public_url` is how clients reach it."""

    endpoint_url: str | None
    public_url: str | None
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One uploaded part; the ETag reads as the store gave it, usually in double quotes."""

    number: int
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    key: str
    size_bytes: int
    etag: str
    modified_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUpload:
    """A multipart upload that was neither completed nor aborted; its parts are in the store."""

    key: str
    upload_id: str
    started_at: datetime


def same_etag(one: str, other: str) -> bool:
    """ETags are compared without their quotes: clients send them either way."""
    return _bare(one) == _bare(other)


class ObjectStore:
    """Every method may raise `StoreUnavailable`, except those that sign: they ask nothing of the store."""

    def __init__(self, client: Any, settings: StoreSettings) -> None:
        self._client = client
        self._bucket = settings.bucket
        self._settings = settings
        self._place = settings.endpoint_url or str(client.meta.endpoint_url)
        self._signer = Signer(
            base_url=settings.public_url or self._place,
            region=settings.region,
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            bucket=settings.bucket,
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: StoreSettings) -> AsyncIterator[Self]:
        """Needs no answer from the store: a process starts while its store is down."""
        config = AioConfig(
            signature_version="s3v4",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=SILENCE_SECONDS,
            max_pool_connections=64,
            retries={"mode": "standard", "total_max_attempts": 2},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
            proxies={} if _is_loopback(settings.endpoint_url) else None,
        )
        session = aioboto3.Session(
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            region_name=settings.region,
        )
        async with session.client("s3", endpoint_url=settings.endpoint_url, config=config) as client:
            yield cls(client, settings)

    # The bucket

    async def ensure_bucket(self) -> None:
        """Make the bucket and let browsers use signed URLs; a bucket that has CORS rules keeps them."""
        async with self._asking(seconds=TRANSFER_SECONDS):
            try:
                await self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if _status(error) != 404:
                    raise
                await self._create_bucket()
        async with self._asking():
            try:
                await self._client.get_bucket_cors(Bucket=self._bucket)
            except ClientError as error:
                if _code(error) != "NoSuchCORSConfiguration":
                    log.warning("the store does not tell its CORS rules (%s)", _code(error))
                    return
            else:
                return
            try:
                await self._client.put_bucket_cors(Bucket=self._bucket, CORSConfiguration={"CORSRules": [CORS_RULE]})
            except ClientError as error:
                log.warning("uploads from a browser need CORS, which the store refused (%s)", _code(error))

    async def _create_bucket(self) -> None:
        elsewhere = self._settings.region != "us-east-1"
        place = {"CreateBucketConfiguration": {"LocationConstraint": self._settings.region}}
        try:
            await self._client.create_bucket(Bucket=self._bucket, **(place if elsewhere else {}))
        except ClientError as error:
            if _code(error) != "BucketAlreadyOwnedByYou":
                raise

    async def ping(self) -> float:
        """Milliseconds until the store answered for our bucket."""
        started = time.perf_counter()
        async with self._asking():
            await self._client.head_bucket(Bucket=self._bucket)
        return (time.perf_counter() - started) * 1000

    # Uploads by clients, in parts

    async def start_multipart(self, key: str, content_type: str) -> str:
        """The id of a new upload, which stays open until it is completed or aborted."""
        async with self._asking(key):
            answer = await self._client.create_multipart_upload(Bucket=self._bucket, Key=key, ContentType=content_type)
        return str(answer["UploadId"])

    def sign_part(self, key: str, upload_id: str, number: int, expires_in: timedelta) -> SignedRequest:
        """Whoever holds it may PUT this part, even again, until it expires. Parts are 1 to 10,000."""
        if not 1 <= number <= MOST_PARTS:
            raise ValueError(f"parts are numbered from 1 to {MOST_PARTS}, not {number}")
        query = {"partNumber": str(number), "uploadId": upload_id}
        return self._signer.sign("PUT", key, query, expires_in=expires_in)

    async def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        """What has arrived so far, by part number. Raises `UploadMissing`.

        Of a part that was sent again this is the newest; SeaweedFS tells times in whole seconds, so of two sent
        within one second it may be either. The ETag that is named at completion decides.
        """
        newest: dict[int, tuple[datetime, Part]] = {}
        for sent_at, part in await self._held_parts(key, upload_id):
            if part.number not in newest or newest[part.number][0] <= sent_at:
                newest[part.number] = sent_at, part
        return [newest[number][1] for number in sorted(newest)]

    async def _held_parts(self, key: str, upload_id: str) -> Sequence[tuple[datetime, Part]]:
        """Every part with its time; SeaweedFS keeps what was sent before under the same number, too."""
        parts: list[tuple[datetime, Part]] = []
        pages = self._client.get_paginator("list_parts")
        async with self._asking(key, seconds=TRANSFER_SECONDS):
            async for page in pages.paginate(Bucket=self._bucket, Key=key, UploadId=upload_id):
                for part in page.get("Parts", ()):
                    held = Part(number=part["PartNumber"], etag=part["ETag"], size_bytes=part["Size"])
                    parts.append((part["LastModified"], held))
        return parts

    async def complete_multipart(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> None:
        """Join the parts into the object; asking again after it worked changes nothing.

        Raises `PartMismatch` when the list is not what the store holds or a part is too small to be joined
        (only the last may be under 5 MiB), and `UploadMissing` when the upload was aborted or never started.
        """
        try:
            held = await self._held_parts(key, upload_id)
        except UploadMissing:
            await self._check_completed(key, upload_id, parts)
            return
        _compare(parts, [part for _, part in held])
        listed = [{"PartNumber": number, "ETag": f'"{_bare(etag)}"'} for number, etag in sorted(parts)]
        try:
            async with self._asking(key, seconds=TRANSFER_SECONDS):
                await self._client.complete_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": listed}
                )
        except UploadMissing:
            await self._check_completed(key, upload_id, parts)

    async def _check_completed(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> None:
        found = await self.head(key)
        if found is None:
            raise UploadMissing(f"there is no open upload {upload_id} of {key}")
        if not same_etag(found.etag, _joined_etag(parts)):
            raise PartMismatch(f"{key} was completed before, from other parts than these")

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        """Throw the parts away; an upload that is gone already is fine."""
        with suppress(UploadMissing):
            async with self._asking(key):
                await self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)

    async def open_uploads(self) -> AsyncIterator[OpenUpload]:
        """Every upload whose parts are in the store."""
        pages = self._client.get_paginator("list_multipart_uploads")
        async with self._asking(seconds=TRANSFER_SECONDS):
            found = [upload async for page in pages.paginate(Bucket=self._bucket) for upload in page.get("Uploads", ())]
        for upload in found:
            yield OpenUpload(key=upload["Key"], upload_id=upload["UploadId"], started_at=upload["Initiated"])

    # Objects

    def sign_get(self, key: str, *, expires_in: timedelta, file_name: str | None, content_type: str) -> SignedRequest:
        """Whoever holds it may download the object; a browser saves it as `file_name`, never displays it."""
        query = {
            "response-content-disposition": attachment(file_name),
            "response-content-type": content_type,
        }
        return self._signer.sign("GET", key, query, expires_in=expires_in)

    async def head(self, key: str) -> ObjectInfo | None:
        """None when there is no such object."""
        try:
            async with self._asking(key):
                answer = await self._client.head_object(Bucket=self._bucket, Key=key)
        except ObjectMissing:
            return None
        return ObjectInfo(
            key=key,
            size_bytes=answer["ContentLength"],
            etag=answer["ETag"],
            modified_at=answer["LastModified"],
        )

    async def read(self, key: str) -> bytes:
        """The whole object, in memory: for manifests and models, not for data. Raises `ObjectMissing`."""
        return await self._read(key)

    async def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes `start` up to, not including, `stop`; fewer where the object ends. Raises `ObjectMissing`."""
        if not 0 <= start <= stop:
            raise ValueError(f"bytes {start} to {stop} are no range")
        if start == stop:
            return b""
        try:
            return await self._read(key, Range=f"bytes={start}-{stop - 1}")
        except ClientError as error:
            if _code(error) in {"InvalidRange", "416"}:
                return b""
            raise

    async def _read(self, key: str, **options: str) -> bytes:
        async with self._asking(key, seconds=None):
            answer = await self._client.get_object(Bucket=self._bucket, Key=key, **options)
            body = answer["Body"]
            async with body:
                return bytes(await body.read())

    async def write(self, key: str, data: bytes, content_type: str) -> None:
        """Put a small object there, whole or not at all, over whatever was there."""
        async with self._asking(key, seconds=TRANSFER_SECONDS):
            await self._client.put_object(Bucket=self._bucket, Key=key, Body=io.BytesIO(data), ContentType=content_type)

    async def upload_file(self, path: Path, key: str, content_type: str) -> None:
        """Put a file there in parts of 8 MiB or more, four at a time; nothing is there until all of it is.

        A failure, or being canceled, ends when the parts on their way have arrived and all were thrown away (unless the
        store is gone: they stay, unseen).
        """
        size = (await asyncio.to_thread(path.stat)).st_size
        if size <= PART_BYTES:
            await self.write(key, await asyncio.to_thread(path.read_bytes), content_type)
            return
        opening = asyncio.create_task(self.start_multipart(key, content_type))
        try:
            upload_id = await asyncio.shield(opening)
            parts = await self._send_parts(path, size, key, upload_id)
            await self.complete_multipart(key, upload_id, parts)
        except BaseException:
            with suppress(StoreUnavailable):
                await asyncio.shield(self.abort_multipart(key, await opening))
            raise

    async def _send_parts(self, path: Path, size: int, key: str, upload_id: str) -> list[tuple[int, str]]:
        part_bytes = max(PART_BYTES, -(-size // MOST_PARTS))
        remaining = deque(range(1, -(-size // part_bytes) + 1))

        async def send_some() -> list[tuple[int, str]]:
            sent = []
            while remaining:
                number = remaining.popleft()
                data = await asyncio.to_thread(_slice, path, (number - 1) * part_bytes, part_bytes)
                async with self._asking(key, seconds=TRANSFER_SECONDS * part_bytes / PART_BYTES):
                    answer = await self._client.upload_part(
                        Bucket=self._bucket,
                        Key=key,
                        UploadId=upload_id,
                        PartNumber=number,
                        Body=io.BytesIO(data),
                    )
                sent.append((number, str(answer["ETag"])))
            return sent

        senders = [asyncio.create_task(send_some()) for _ in range(PARTS_AT_ONCE)]
        try:
            await asyncio.wait(senders, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            remaining.clear()
            # What is on its way arrives first: a part that comes after the upload was aborted, the store may keep.
            await asyncio.gather(*senders, return_exceptions=True)
        return [part for sender in senders for part in sender.result()]

    async def download_file(self, key: str, path: Path) -> str:
        """Fetch an object into a file and tell the SHA-256 of its bytes, in hex. Raises `ObjectMissing`.

        The file appears whole, under its name, or not at all; what was there before stays until then.
        """
        descriptor, name = await asyncio.to_thread(
            tempfile.mkstemp, dir=path.parent, prefix=f".{path.name}.", suffix=".part"
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest = await self._fetch(key, file)
            await asyncio.to_thread(os.replace, name, path)
        except BaseException:
            os.unlink(name)
            raise
        return digest

    async def download_growing(self, key: str, path: Path) -> str:
        """As `download_file`, into a file that others read while it grows."""
        with await asyncio.to_thread(path.open, "wb", 0) as file:
            return await self._fetch(key, file)

    async def _fetch(self, key: str, file: BinaryIO) -> str:
        digest = hashlib.sha256()
        async with self._asking(key, seconds=None):
            answer = await self._client.get_object(Bucket=self._bucket, Key=key)
            body = answer["Body"]
            async with body:
                async for chunk in body.iter_chunks(MIB):
                    await asyncio.to_thread(_append, file, digest, chunk)
        return digest.hexdigest()

    async def delete(self, keys: Iterable[str]) -> None:
        """Objects that are not there are fine."""
        every = list(keys)
        for start in range(0, len(every), 1000):
            batch = [{"Key": key} for key in every[start : start + 1000]]
            async with self._asking(seconds=TRANSFER_SECONDS):
                answer = await self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True}
                )
            if failed := answer.get("Errors"):
                raise StoreUnavailable(
                    f"{self._place} kept {len(failed)} of {len(batch)} objects that were to be deleted, "
                    f"the first for {failed[0].get('Code')}"
                )

    async def remove(self, key: str) -> None:
        """Leave nothing at a key: neither an object nor the parts of uploads that were never joined."""
        async with self._asking(key, seconds=TRANSFER_SECONDS):
            answer = await self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key)
        for upload in answer.get("Uploads", ()):
            if upload["Key"] == key:
                await self.abort_multipart(key, upload["UploadId"])
        await self.delete([key])

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key starts so, in the order of keys."""
        token: dict[str, str] = {}
        while True:
            async with self._asking():
                page = await self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **token)
            for entry in page.get("Contents", ()):
                yield ObjectInfo(
                    key=entry["Key"],
                    size_bytes=entry["Size"],
                    etag=entry["ETag"],
                    modified_at=entry["LastModified"],
                )
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    # Reading with polars

    def uri(self, key: str) -> str:
        """The object's name for polars, to go with `storage_options`."""
        return f"s3://{self._bucket}/{key}"

    def storage_options(self) -> dict[str, str]:
        """How polars reaches this store (`pl.scan_parquet(store.uri(key), storage_options=...)`)."""
        return {
            "aws_access_key_id": self._settings.access_key,
            "aws_secret_access_key": self._settings.secret_key,
            "aws_region": self._settings.region,
            "aws_endpoint_url": self._place,
            "aws_virtual_hosted_style_request": "false",
            "aws_allow_http": "true" if self._place.startswith("http://") else "false",
        }

    # Answers

    @asynccontextmanager
    async def _asking(self, key: str | None = None, *, seconds: float | None = QUESTION_SECONDS) -> AsyncIterator[None]:
        """Bounds what happens inside, and turns the many ways a store fails into our few."""
        with self._translated(key):
            async with asyncio.timeout(seconds):
                yield

    @contextmanager
    def _translated(self, key: str | None) -> Iterator[None]:
        try:
            yield
        except ParamValidationError:
            raise
        except ClientError as error:
            code = _code(error)
            if code == "NoSuchUpload":
                raise UploadMissing(f"there is no such open upload of {key}") from error
            if code in _BAD_PARTS and error.operation_name == "CompleteMultipartUpload":
                raise PartMismatch(f"the parts of {key} cannot be joined: {code}") from error
            if code == "NoSuchKey" or (code in {"404", "NotFound"} and key is not None):
                raise ObjectMissing(f"there is no object {key}") from error
            if reason := self._why_unusable(error):
                raise StoreUnavailable(reason) from error
            raise
        except TimeoutError as error:
            raise StoreUnavailable(self._unreachable("it did not answer in time")) from error
        except (BotoCoreError, aiohttp.ClientError, ConnectionError) as error:
            raise StoreUnavailable(self._unreachable(type(error).__name__)) from error

    def _why_unusable(self, error: ClientError) -> str | None:
        code, status = _code(error), _status(error)
        if code in _BUSY or status == 429 or status >= 500:
            return f"the object store at {self._place} is failing or overloaded ({code}, HTTP {status})"
        if code in _BAD_SETTINGS:
            return self._set_up_wrongly(f"{_BAD_SETTINGS[code]} ({code})")
        if status in {401, 403, 404}:
            return self._set_up_wrongly(
                {
                    401: "it wants other credentials",
                    403: "the access key, the secret key or its rights are wrong",
                    404: f"there is no bucket {self._bucket!r}",
                }[status]
            )
        return None

    def _unreachable(self, what: str) -> str:
        return (
            f"the object store at {self._place} cannot be reached ({what}): check that it runs "
            "and that HEADAI_S3_ENDPOINT_URL names it"
        )

    def _set_up_wrongly(self, what: str) -> str:
        return f"the object store at {self._place} refuses us: {what}; check the HEADAI_S3_* settings"


def _compare(named: Sequence[tuple[int, str]], held: Sequence[Part]) -> None:
    if not named:
        raise PartMismatch("an upload has at least one part")
    wanted = dict(named)
    if len(wanted) != len(named):
        raise PartMismatch("a part is named twice")
    etags: dict[int, list[str]] = {}
    for part in held:
        etags.setdefault(part.number, []).append(part.etag)
    if missing := sorted(wanted.keys() - etags.keys()):
        raise PartMismatch(f"part {missing[0]} has not arrived")
    if extra := sorted(etags.keys() - wanted.keys()):
        raise PartMismatch(f"part {extra[0]} is in the store and not in the list")
    for number in sorted(wanted):
        if not any(same_etag(wanted[number], etag) for etag in etags[number]):
            raise PartMismatch(f"part {number} has the ETag {etags[number][-1]}, not {wanted[number]}")


def _joined_etag(parts: Sequence[tuple[int, str]]) -> str:
    """The ETag of the object made of these parts, as every S3 has it: MD5 of their MD5s, and how many."""
    try:
        digests = b"".join(bytes.fromhex(_bare(etag)) for _, etag in sorted(parts))
    except ValueError:
        return "unknown"
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_loopback(url: str | None) -> bool:
    """A server on this machine is not behind the proxy that the environment may name."""
    host = urlsplit(url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _slice(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _append(file: BinaryIO, digest: "hashlib._Hash", chunk: bytes) -> None:
    digest.update(chunk)
    file.write(chunk)
