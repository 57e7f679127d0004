"""Lets the suites and clients of others judge a running Head AI; see `--help`."""

import argparse
import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.stack import running
from explorer.build import BuildFailed, install_packages, node_and_npm

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Judged:
    """A server, and who the suites are on it; `ours`: it is gone afterwards, so anything may be changed on it."""

    url: str
    token: str
    ours: bool

    async def ask(self, document: str, **variables: object) -> dict[str, object]:
        return await _ask(self.url, document, {"authorization": f"Bearer {self.token}"}, variables)


async def _ask(
    url: str, document: str, headers: Mapping[str, str], variables: Mapping[str, object]
) -> dict[str, object]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answer = await http.post(f"{url}/graphql", json={"query": document, "variables": variables}, headers=headers)
    body = answer.json()
    if body.get("errors"):
        sys.exit(f"{url} says: {body['errors'][0]['message']}")
    data: dict[str, object] = body["data"]
    return data


@asynccontextmanager
async def the_server(given: argparse.Namespace) -> AsyncIterator[Judged]:
    """The server at the URL that was given; else one of the judge's own, with nothing on it."""
    if given.url:
        password = os.environ.get("HEADAI_ADMIN_PASSWORD") or sys.exit("Set HEADAI_ADMIN_PASSWORD to the password.")
        document = (
            "mutation ($input: LoginInput!) { login(input: $input) { tokens { accessToken } errors { message } } }"
        )
        signed_in = await _ask(given.url, document, {}, {"input": {"username": given.username, "password": password}})
        tokens = signed_in["login"]["tokens"] or sys.exit(signed_in["login"]["errors"][0]["message"])
        yield Judged(given.url, tokens["accessToken"], ours=False)
        return
    async with running() as own:
        yield Judged(own.url, await own.token(), ours=True)


def prepare() -> str:
    """Have the packages of both locks; the path of Node."""
    node, npm = node_and_npm()
    install_packages(HERE, node, npm)
    lock = HERE / "requirements.lock"
    stamp = HERE / ".venv" / ".lock"
    if not (stamp.is_file() and stamp.read_text() == lock.read_text()):
        uv = str(Path(sys.executable).with_name("uv"))
        environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
        for command in (
            [uv, "venv", "-q", "--clear", "--python", sys.executable, str(HERE / ".venv")],
            [uv, "pip", "sync", "-q", "--python", str(PYTHON), "--require-hashes", str(lock)],
        ):
            subprocess.run(command, check=True, env=environment)
        stamp.write_text(lock.read_text())
    return node


async def passes(title: str, command: Sequence[str], environment: Mapping[str, str], *, saying: str) -> bool:
    """Whether a suite ends well. Shown are the lines that have `saying` in them, or all when it does not."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="headai-judge-") as folder:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = (await process.communicate())[0].decode(errors="replace")
    good = process.returncode == 0
    print("\n".join(f"  {line.strip()}" for line in said.splitlines() if not good or saying in line))
    print(f"{'ok' if good else 'FAILED'}: {title}, {time.monotonic() - began:.0f} s", flush=True)
    return good


async def judge(given: argparse.Namespace) -> bool:
    node = prepare()
    async with the_server(given) as judged:
        slug = f"judge-{secrets.token_hex(4)}"
        document = "mutation ($input: CreateProjectInput!) { createProject(input: $input) { project { id } } }"
        made = await judged.ask(document, input={"slug": slug, "name": "What the judge does"})
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "URL": judged.url,
            "TOKEN": judged.token,
            "PROJECT": made["createProject"]["project"]["id"],
            "NO_COLOR": "1",
            "SCHEMATHESIS_HOOKS": str(HERE / "unexpected.py"),
        }
        fuzz = [
            str(PYTHON.with_name("schemathesis")),
            *("run", f"{judged.url}/graphql", "-H", f"Authorization: Bearer {judged.token}"),
            *("-c", "no_unexpected_error", "--phases", "fuzzing", "-n", str(given.examples), "--seed", str(given.seed)),
            *("--continue-on-failure", "--request-timeout", "30", "--suppress-health-check", "all", "--no-shrink"),
        ]
        fuzz += ["--exclude-name-regex", r"^Mutation\.logout$" if judged.ours else r"^Mutation\."]
        results = [
            await passes(
                "the audit suite of graphql-http", [node, str(HERE / "audit.mjs")], environment, saying=" of "
            ),
            await passes(
                "graphql-ws, graphql-sse, Apollo Client and urql",
                [node, str(HERE / "clients.mjs")],
                environment,
                saying="resumed",
            ),
            await passes("gql", [str(PYTHON), str(HERE / "gql_client.py")], environment, saying="resumed"),
            await passes(f"Schemathesis, {given.examples} examples a field", fuzz, environment, saying="generated"),
        ]
    return all(results)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make judge",
        description="Lets the audit suite of graphql-http, five GraphQL clients and Schemathesis judge a Head AI: one "
        "of its own in a temporary folder, or the one at --url. They sign in there by HEADAI_ADMIN_PASSWORD and leave "
        "a project of datasets behind, and Schemathesis sends queries only.",
    )
    parser.add_argument("--url", help="where a server runs")
    parser.add_argument("--username", default="admin", help="who to sign in as there")
    parser.add_argument("--examples", type=int, default=5, help="operations that Schemathesis makes up for a field")
    parser.add_argument("--seed", type=int, default=1, help="of what Schemathesis makes up")
    given = parser.parse_args()
    try:
        return 0 if asyncio.run(judge(given)) else 1
    except BuildFailed as failure:
        print(failure)
        return 1


if __name__ == "__main__":
    sys.exit(main())
