"""`headai datasets push` against a real server: whole files, folders, and after it was killed."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VERSIONS = """
query ($name: String!) {
  datasets(filter: {name: {eq: $name}}) {
    nodes { id versions { nodes { id number status rowCount digest } } uploads { nodes { status partCount } } }
  }
}
"""


@pytest.fixture
def push(server: str, project: Any, token_of: Any, scientist: Any) -> Any:
    async def start(*arguments: str, program: tuple[str, ...] = ("-m", "headai")) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, *program, "datasets", "push",
            "--url", server, "--project", project.slug, "--token", token_of(scientist), *arguments,
            cwd=Path(__file__).parents[1], stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    return start


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(120):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


async def dataset(execute: Any, principal: Any, name: str) -> Any:
    nodes = (await execute(VERSIONS, principal=principal, name=name))["data"]["datasets"]["nodes"]
    return nodes[0] if nodes else None


async def test_a_folder_becomes_datasets(push, worker, execute, scientist, tmp_path):
    (tmp_path / "first.csv").write_bytes(b"a,b\n1,2\n")
    (tmp_path / "second.jsonl").write_bytes(b'{"a": 1}\n{"a": 2}\n')
    (tmp_path / "notes.md").write_bytes(b"# no data\n")
    pushed = await ended(await push(str(tmp_path)))
    again = await ended(await push(str(tmp_path)))

    assert pushed == (
        0,
        "• first.csv: version 1 is READY with 1 rows (8 bytes sent)\n"
        "• second.jsonl: version 1 is READY with 2 rows (18 bytes sent)\n",
    )
    assert again == (
        0,
        "• first.csv: version 1 is READY with 1 rows (nothing had to be sent)\n"
        "• second.jsonl: version 1 is READY with 2 rows (nothing had to be sent)\n",
    )
    made = [await dataset(execute, scientist, name) for name in ("first", "second")]
    assert [len(one["versions"]["nodes"]) for one in made] == [1, 1]


async def test_a_broken_file_is_told_and_the_rest_goes_on(push, worker, execute, scientist, tmp_path):
    (tmp_path / "broken.csv").write_bytes(b"a,b\n1\n")
    (tmp_path / "whole.csv").write_bytes(b"a,b\n1,2\n")
    status, output = await ended(await push(str(tmp_path), "--dataset", "both"))

    assert status == 1
    assert "broken.csv cannot be used: Line 2 has 1 value where the file has 2 columns." in output.replace("\n", " ")
    assert "• whole.csv: version 2 is READY with 1 rows (8 bytes sent)" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.csv"], "There is no file nothing.csv"),
        (["README.md"], "The ending of README.md tells no format"),
        (["README.md", "--format", "CSV", "--project", "none"], "There is no project 'none' that you may see."),
    ],
)
async def test_what_cannot_be_pushed_is_told(push, arguments, said):
    status, output = await ended(await push(*arguments))
    assert (status, said in output.replace("\n", " ")) == (1, True)


async def test_a_push_that_is_killed_goes_on_where_it_was(push, execute, scientist, tmp_path):
    """40 MB in parts of 8 MiB, one at a time; killed when it is to send the third."""
    path = tmp_path / "large.csv"
    rows = "".join(f"{a}\n" for a in np.random.default_rng(1).random(2_200_000))
    await asyncio.to_thread(path.write_text, "a\n" + rows)
    arguments = (str(path), "--parts-at-once", "1", "--no-wait")
    killed = await push(*arguments, program=("-c", DIES_AT_THE_THIRD_PART))
    status, _ = await ended(killed)
    held = (await dataset(execute, scientist, "large"))["uploads"]["nodes"]
    pushed = await ended(await push(*arguments))
    made = await dataset(execute, scientist, "large")

    assert (status, held) == (-signal.SIGKILL, [{"status": "OPEN", "partCount": 6}])
    sent = path.stat().st_size - 2 * 8 * 2**20
    assert pushed == (0, f"• large.csv: version 1 is PROCESSING ({sent:,} bytes sent)\n")
    assert made["uploads"]["nodes"] == [{"status": "COMPLETED", "partCount": 6}]
    assert [version["number"] for version in made["versions"]["nodes"]] == [1]


DIES_AT_THE_THIRD_PART = """
import os, signal
from headai import cli, client

put, parts = client.Api.put, 0

async def put_twice(self, *args, **kwargs):
    global parts
    parts += 1
    if parts > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return await put(self, *args, **kwargs)

client.Api.put = put_twice
cli.main()
"""
