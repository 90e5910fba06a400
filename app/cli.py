"""`bequest`: serve, worker, demo, examples, sweep; datasets add, datasets list; pretrained add, pretrained list."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.exit("bequest: run `bequest`, or `python -P -m app.cli`: without -P modules come from the folder you stand in")

import os
from pathlib import Path
from typing import Annotated

import typer

main = typer.Typer(
    help="Training jobs that say whether the method helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

datasets = typer.Typer(help="Data sets of a running service.", no_args_is_help=True)
main.add_typer(datasets, name="datasets")

pretrained = typer.Typer(
    help="Networks that others trained, from packages that hold their numbers.", no_args_is_help=True
)
main.add_typer(pretrained, name="pretrained")

Url = Annotated[str, typer.Option(envvar="BEQUEST_URL", help="The service's address.")]
LOCAL = "http://127.0.0.1:8000"


@main.callback()
def _settings_are_sound(context: typer.Context) -> None:
    if context.invoked_subcommand not in ("serve", "worker", "demo", "examples", "sweep"):
        return
    from pydantic import ValidationError

    from app.settings import settings

    try:
        settings()
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            name = f"{fault['loc'][0]}: " if fault["loc"] else ""
            typer.echo(f"bequest: {name}{fault['msg'].removeprefix('Value error, ')}", err=True)
        raise typer.Exit(2) from None


@main.command()
def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; others than loopback need --insecure.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    data: Annotated[Path | None, typer.Option(help="The data folder; BEQUEST_DATA, else one in your home.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="One for each device.")] = 1,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen where others can reach it, without API keys.")
    ] = False,
) -> None:
    """Run the whole service. Without DATABASE_URL and BROKER_URL it brings a Postgres and a Valkey of its own."""
    from app.serve import Options
    from app.serve import serve as run

    raise typer.Exit(run(Options(host, port, data, workers, insecure)))


@main.command()
def worker() -> None:
    """Run one worker. Needs DATABASE_URL, BROKER_URL and the service's data folder in BEQUEST_DATA."""
    from app.serve import work
    from app.settings import settings

    _need_addresses("a worker")
    data = settings().data.expanduser().absolute()
    try:
        work(data)
    except OSError as error:
        typer.echo(f"bequest: the data folder {data} in BEQUEST_DATA cannot be used: {error.strerror}", err=True)
        raise typer.Exit(2) from None


@main.command()
def demo(
    quick: Annotated[
        bool, typer.Option("--quick", help="One pair an experiment: faster, and honestly inconclusive.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running until Ctrl-C.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the results as an SVG file.")] = None,
) -> None:
    """Train three models over HTTP on a service of its own, and show what came out."""
    from app.demo import demo as run

    raise typer.Exit(run(quick=quick, keep=keep, picture=picture))


@main.command()
def examples(
    only: Annotated[
        list[str] | None, typer.Argument(help="Applications, such as face-verification; all when left out.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One pair each: faster, and honestly inconclusive.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running until Ctrl-C.")] = False,
) -> None:
    """Run a job for each application over HTTP on a service of its own, and print a table of the verdicts."""
    from app.applications import bodies
    from app.examples import examples as run

    unknown = [name for name in only or [] if name not in bodies()]
    if unknown:
        raise typer.BadParameter(f"there is no application {', '.join(unknown)}: known are {', '.join(bodies())}")
    raise typer.Exit(run(quick=quick, keep=keep, only=only or ()))


@main.command()
def sweep() -> None:
    """Take back jobs from workers that are gone and send missing wake-ups, once. The API and the workers do so all the time."""
    from sqlalchemy.exc import OperationalError

    from app import jobs

    _need_addresses("a sweep")
    try:
        swept = jobs.sweep()
    except OperationalError:
        typer.echo("bequest: the database at DATABASE_URL does not answer", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{swept.requeued} requeued, {swept.ended} ended, {swept.woken} woken")


@datasets.command("add")
def add_dataset(
    path: Annotated[
        Path, typer.Argument(help="A folder of files, or one file: a table, an archive, an npz.", exists=True)
    ],
    name: Annotated[str | None, typer.Option(help="A label; the file's or folder's name when left out.")] = None,
    targets: Annotated[list[str] | None, typer.Option(help="Columns to learn: a,b or a:category,b:number.")] = None,
    inputs: Annotated[list[str] | None, typer.Option(help="Columns to learn from; all others when left out.")] = None,
    size: Annotated[str | None, typer.Option(help="Of pictures: HEIGHTxWIDTH, as in 64x64.")] = None,
    fit: Annotated[str | None, typer.Option(help="How pictures come to their size: stretch, crop or pad.")] = None,
    length: Annotated[int | None, typer.Option(help="Of texts, in bytes.")] = None,
    rate: Annotated[int | None, typer.Option(help="Of sounds, in samples a second.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Of sounds: how much of each is heard.")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Go on without what cannot be read.")] = False,
    url: Url = LOCAL,
) -> None:
    """Make a data set of a folder or a file, and show what became of each part. What the service has already is not sent again."""
    from rich.console import Console

    from app import client

    asked = client.Asked(name, targets or [], inputs or [], size, fit, length, rate, seconds, skip_broken)
    raise typer.Exit(client.add(path, asked, url, Console(highlight=False)))


@datasets.command("list")
def list_datasets(url: Url = LOCAL) -> None:
    """Show the service's data sets: uploads, the newest first, then the built-in ones."""
    from rich.console import Console

    from app import client

    raise typer.Exit(client.list_all(url, Console(highlight=False)))


@pretrained.command("add")
def add_pretrained(
    name: Annotated[
        str,
        typer.Argument(help="As `bequest pretrained list` has it; or the path of a model's folder of Hugging Face."),
    ],
    called: Annotated[
        str | None, typer.Option("--name", help="Of a folder: what the model is called; as the folder when left out.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Of pictures: the HEIGHTxWIDTH that the network sees; as in training when left out."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="The package's wheel, or the file in it; the installed package when left out.")
    ] = None,
    url: Url = LOCAL,
) -> None:
    """Make a model `pretrained:NAME` of an installed package's file, which is known by its hash; or one of a folder. No code is run."""
    from rich.console import Console

    from app import client

    console = Console(highlight=False)
    if (folder := client.folder_in(name)) is not None:
        raise typer.Exit(client.add_folder(folder, url, console, name=called, size=size))
    raise typer.Exit(client.add_pretrained(name, url, console, size=size, file=file))


@pretrained.command("list")
def list_pretrained() -> None:
    """Show which networks there are, what has to be installed for each, and their licences."""
    from rich.console import Console

    from app import client

    client.list_pretrained(Console(highlight=False))


def _need_addresses(who: str) -> None:
    for name in ("DATABASE_URL", "BROKER_URL"):
        if not os.environ.get(name):
            typer.echo(f"bequest: {name} is not set; {who} needs the address of the service's own", err=True)
            raise typer.Exit(2)


if __name__ == "__main__":
    main()
