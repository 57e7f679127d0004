"""The `headai` command: start the stack or one part of it, migrate, administer, run the demo."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from db.connections import DatabaseUnavailable
from headai.settings import CommonSettings, Settings, SettingsError, StackSettings, settings_table

app = typer.Typer(
    name="headai",
    help="Head AI: datasets, training, live metrics, models and predictions behind one GraphQL schema. "
    "Every setting is a HEADAI_* variable; `headai settings` lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
admin = typer.Typer(no_args_is_help=True, help="Administrators and passwords, straight in the database.")
app.add_typer(admin, name="admin")
datasets = typer.Typer(no_args_is_help=True, help="Datasets, through the public API.")
app.add_typer(datasets, name="datasets")
storage = typer.Typer(no_args_is_help=True, help="The object store, held against the database.")
app.add_typer(storage, name="storage")


@app.command()
def up() -> None:
    """Start everything in the foreground: servers, migrations, API, worker. Ctrl-C stops it."""
    from headai.stack import run_stack

    raise typer.Exit(run_stack(StackSettings.load()))


@app.command()
def api() -> None:
    """Serve the GraphQL API."""
    from headai.serving import serve

    serve(Settings.load())


@app.command()
def worker() -> None:
    """Run jobs: inspect uploads, train models."""
    import uvloop

    from monitoring.logs import configure
    from workers.main import WorkerSettings, run

    loaded = Settings.load()
    configure(style=loaded.log_format, level=loaded.log_level.upper())
    uvloop.run(
        run(
            WorkerSettings(
                database_url=loaded.database_url,
                database_pool_size=loaded.database_pool_size,
                redis_url=loaded.redis_url,
                store=loaded.store(),
                scratch=loaded.home / "scratch",
                run_memory_limit_mb=loaded.run_memory_limit_mb,
                runs_at_once=loaded.worker_concurrency,
                event_retention=loaded.event_retention,
                metric_retention=loaded.metric_retention,
                checkpoint_seconds=loaded.checkpoint_interval.total_seconds(),
            )
        )
    )


@app.command()
def migrate() -> None:
    """Bring the tables of the database up to date."""
    from headai.migrating import migrate as bring_up_to_date

    bring_up_to_date(Settings.load())


@app.command()
def schema() -> None:
    """Print the GraphQL schema."""
    from schema.build import sdl

    sys.stdout.write(sdl())


@app.command()
def settings() -> None:
    """List every setting with its default, as a Markdown table."""
    sys.stdout.write(settings_table())


@app.command()
def demo(
    url: Annotated[str, typer.Option(help="Where the server is; else the port of HEADAI_PORT here.")] = "",
    username: Annotated[str, typer.Option(help="Who to sign in as.")] = "admin",
    password: Annotated[str, typer.Option(help="Else HEADAI_ADMIN_PASSWORD, else asked for.")] = "",
    data: Annotated[Path | None, typer.Option(help="A CSV or Parquet file in place of the demo's.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of that file to predict.")] = None,
) -> None:
    """Do the main job through the public API: upload, train with live metrics, register, predict."""
    from headai.demo import run_demo

    if (data is None) != (target is None):
        raise typer.BadParameter("--data and --target go together")
    common = CommonSettings.load()
    known = common.admin_password.get_secret_value() if common.admin_password else ""
    password = password or known or typer.prompt(f"Password of {username}", hide_input=True)
    raise typer.Exit(
        asyncio.run(
            run_demo(
                url=url or f"http://127.0.0.1:{common.port}",
                username=username,
                password=password,
                data=data,
                target=target,
            )
        )
    )


@admin.command("create")
def admin_create(username: Annotated[str, typer.Argument(help="Name to sign in with.")]) -> None:
    """Make an administrator; asks for the password."""
    from headai.administration import create_administrator

    loaded = Settings.load()
    password = _new_password()
    asyncio.run(create_administrator(loaded, username, password))
    typer.echo(f"{username} can sign in.")


@admin.command("set-password")
def admin_set_password(username: Annotated[str, typer.Argument(help="Whose password to set.")]) -> None:
    """Set a password; asks for it."""
    from headai.administration import set_password

    loaded = Settings.load()
    password = _new_password()
    asyncio.run(set_password(loaded, username, password))
    typer.echo(f"The password of {username} is changed.")


@datasets.command("push")
def datasets_push(
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders with files, that become dataset versions.")],
    project: Annotated[str, typer.Option(help="The slug of the project.")],
    dataset: Annotated[str | None, typer.Option(help="The dataset's name; else that of each file.")] = None,
    format: Annotated[str | None, typer.Option(help="CSV, JSONL, PARQUET or ARROW; else by the ending.")] = None,
    parts_at_once: Annotated[int, typer.Option(min=1, max=32, help="How many parts are sent at a time.")] = 4,
    wait: Annotated[bool, typer.Option(help="Wait until each version is READY.")] = True,
    url: Annotated[str, typer.Option(help="Where the server is; else the port of HEADAI_PORT here.")] = "",
    token: Annotated[str, typer.Option(envvar="HEADAI_TOKEN", help="An API token, in place of a password.")] = "",
    username: Annotated[str, typer.Option(help="Who to sign in as.")] = "admin",
    password: Annotated[str, typer.Option(help="Else HEADAI_ADMIN_PASSWORD, else asked for.")] = "",
) -> None:
    """Send files to datasets, in parts straight to the object store; a push that was cut off goes on where it was."""
    from rich.console import Console

    from headai.push import push

    common = CommonSettings.load()
    if not token:
        known = common.admin_password.get_secret_value() if common.admin_password else ""
        password = password or known or typer.prompt(f"Password of {username}", hide_input=True)
    raise typer.Exit(
        asyncio.run(
            push(
                url=url or f"http://127.0.0.1:{common.port}",
                username=username,
                password=password,
                token=token,
                paths=paths,
                project=project,
                dataset=dataset,
                format=format,
                parts_at_once=parts_at_once,
                wait=wait,
                console=Console(soft_wrap=True, highlight=False),
            )
        )
    )


@storage.command("check")
def storage_check(
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be.")] = False,
) -> None:
    """Tell objects without a record and records without their object; exit status 1 when there are any."""
    from headai.storage_check import storage_check as check
    from storage.objects import StoreUnavailable

    try:
        raise typer.Exit(asyncio.run(check(Settings.load(), repairing=repair, say=typer.echo)))
    except StoreUnavailable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


def _new_password() -> str:
    """Asked for twice on a terminal; the first line of standard input otherwise."""
    if sys.stdin.isatty():
        return str(typer.prompt("New password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")


def main() -> None:
    """Run the command line; what a person can put right is one message, not a traceback."""
    try:
        app()
    except SettingsError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except DatabaseUnavailable as error:
        typer.echo(f"The database at HEADAI_DATABASE_URL cannot be reached: {error}", err=True)
        sys.exit(1)
