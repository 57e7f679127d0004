"""Signed URLs: how a client sends bytes to the store, or fetches them, without passing through our API.

AWS Signature Version 4 in the query string, path style, payload unsigned
(https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html). Signing is arithmetic on the
secret key; nothing is asked of the store, so it works while the store is down.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote, urlencode

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SHORTEST_LIFE = timedelta(seconds=1)
LONGEST_LIFE = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """A request that anybody holding it may make until it expires; the URL is a secret."""

    method: Literal["GET", "PUT"]
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Signs for one bucket, reached at `base_url` by whoever uses the URL."""

    base_url: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str

    def sign(
        self, method: Literal["GET", "PUT"], key: str, query: Mapping[str, str], *, expires_in: timedelta
    ) -> SignedRequest:
        """`expires_in` counts in whole seconds, from one second to seven days (a limit of the protocol)."""
        if not SHORTEST_LIFE <= expires_in <= LONGEST_LIFE:
            raise ValueError(f"a signed URL lives from 1 second to 7 days, not {expires_in}")
        seconds = int(expires_in.total_seconds())
        path = quote(f"/{self.bucket}/{key}", safe="/~")
        request = AWSRequest(
            method=method, url=f"{self.base_url.rstrip('/')}{path}?{urlencode(query, quote_via=quote)}"
        )
        credentials = Credentials(self.access_key, self.secret_key)
        S3SigV4QueryAuth(credentials, "s3", self.region, expires=seconds).add_auth(request)
        signed_at = datetime.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return SignedRequest(method=method, url=request.url, expires_at=signed_at + timedelta(seconds=seconds))


def attachment(file_name: str | None) -> str:
    """A Content-Disposition that saves and never displays, whatever characters the name has (RFC 6266)."""
    if not file_name:
        return "attachment"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-()") else "_" for c in file_name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"
