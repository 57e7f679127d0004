"""Where each object lives in the bucket: datasets as uploaded, their Parquet, artifacts of runs, models.

A key is made from our own ids and from names that our code chooses; nothing a user typed gets into it.
Ids and attempt numbers have a fixed length, so the prefix of one thing never lists another's. Nothing ends in
`/`: such a key can be written to SeaweedFS and not read back.
"""

import re
from uuid import UUID

LAST_ATTEMPT = 9999
LONGEST_PATH = 200
_PATH = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


def upload_key(dataset_id: UUID, version_id: UUID) -> str:
    """The bytes of a dataset version exactly as its user sent them."""
    return f"uploads/{dataset_id.hex}/{version_id.hex}"


def data_key(dataset_id: UUID, version_id: UUID, lease: UUID) -> str:
    """The same data as Parquet, which training reads; each worker that tries to make it writes its own."""
    return f"{data_prefix(dataset_id, version_id)}/{lease.hex}.parquet"


def data_prefix(dataset_id: UUID, version_id: UUID) -> str:
    """Lists what workers wrote for one dataset version."""
    return f"datasets/{dataset_id.hex}/{version_id.hex}"


def dataset_prefixes(dataset_id: UUID) -> tuple[str, str]:
    """List every object of one dataset: as uploaded, and as Parquet."""
    return f"uploads/{dataset_id.hex}/", f"datasets/{dataset_id.hex}/"


def artifact_key(run_id: UUID, attempt: int, path: str) -> str:
    """What one attempt of a run wrote: `model.txt`, `checkpoints/000020.txt`."""
    return f"{attempt_prefix(run_id, attempt)}/{_checked(path)}"


def run_prefix(run_id: UUID) -> str:
    """Lists everything that the attempts of one run wrote."""
    return f"runs/{run_id.hex}"


def attempt_prefix(run_id: UUID, attempt: int) -> str:
    """Lists every artifact of one attempt."""
    if not 0 <= attempt <= LAST_ATTEMPT:
        raise ValueError(f"an attempt is numbered from 0 to {LAST_ATTEMPT}, not {attempt}")
    return f"{run_prefix(run_id)}/{attempt:04}"


def model_key(model_id: UUID, version_id: UUID, path: str) -> str:
    """A file of a model version: `model.txt`, `manifest.json`."""
    return f"{model_prefix(model_id, version_id)}/{_checked(path)}"


def model_prefix(model_id: UUID, version_id: UUID) -> str:
    """Lists every file of one model version."""
    return f"models/{model_id.hex}/{version_id.hex}"


def operation_key(operation_id: UUID, name: str) -> str:
    """What an operation has reached so far, for the attempts after this one."""
    return f"operations/{operation_id.hex}/{_checked(name)}"


def operation_prefix(operation_id: UUID) -> str:
    """Lists everything that an operation wrote."""
    return f"operations/{operation_id.hex}/"


def _checked(path: str) -> str:
    if len(path) > LONGEST_PATH or not _PATH.fullmatch(path):
        raise ValueError(
            f"{path!r} is no artifact path: lower-case letters, digits, '.', '_' and '-' in parts "
            f"separated by '/', at most {LONGEST_PATH} characters"
        )
    return path
