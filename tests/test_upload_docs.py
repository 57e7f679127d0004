"""The transcript in docs/uploading.md is what happens: its commands are run, and what they print is compared."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from headai.administration import ensure_administrator

TRANSCRIPT = Path(__file__).parents[1] / "docs" / "uploading.md"
PASSWORD = "correct horse battery"


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq, as its reader does")
async def test_the_transcript_is_what_happens(server, worker, settings, db, tmp_path):
    async with db.transaction() as session:
        await session.connection.execute("TRUNCATE users CASCADE")
    await ensure_administrator(settings, PASSWORD)
    blocks = re.findall(r"```(sh|text)\n(.*?)```", TRANSCRIPT.read_text(encoding="utf-8"), re.DOTALL)
    script, expected = "set -euo pipefail\n", ""
    for kind, content in blocks:
        if kind == "sh":
            script += content
        else:
            expected += content
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "HEADAI": server, "USERNAME": "admin", "PASSWORD": PASSWORD},
    )  # fmt: skip
    try:
        async with asyncio.timeout(180):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert (process.returncode, errors.decode()) == (0, "")
    assert output.decode() == expected
    assert expected.count("\n") > 5
