"""``openmaas usage …``, ``prices …`` and ``audit``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from openmaas.cli import folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.screen import err, out, say, table
from openmaas.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from openmaas.tenancy.usage import Period

usage = typer.Typer(help="What was used and what it cost.", no_args_is_help=True)
prices = typer.Typer(help="What models cost.", no_args_is_help=True)

Since = Annotated[
    str | None, typer.Option(metavar="DATE", help="2026-12-31 or 2026-12. [dim]\\[this month][/]")
]
Until = Annotated[str | None, typer.Option(metavar="DATE", help="With it. [dim]\\[today][/]")]
Tenant = Annotated[str | None, typer.Option(metavar="NAME", help="Only this one's.")]


def register(app: typer.Typer, panel: str) -> None:
    app.add_typer(usage, name="usage", rich_help_panel=panel)
    app.add_typer(prices, name="prices", rich_help_panel=panel)
    app.command(epilog=AUDIT_EXAMPLES, rich_help_panel=panel)(audit)


SUM_EXAMPLES = """[bold]Examples[/]

openmaas usage sum --by tenant,model

openmaas usage sum --by day --tenant acme --since 2026-11

Dimensions: day, month, tenant, project, key, model, version, task, outcome."""


@usage.command("sum", epilog=SUM_EXAMPLES)
def sum_(
    by: Annotated[str, typer.Option(metavar="NAMES", help="Joined by commas.")] = "tenant,model",
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Adds usage up."""
    from openmaas.tenancy import usage as of

    dimensions = [one for one in of.DIMENSIONS if one in by.split(",")]
    unknown = set(by.split(",")) - set(of.DIMENSIONS) - {""}
    if unknown:
        raise InvalidRequest(f"--by: no {sorted(unknown)[0]!r}; see --help")
    chosen = folder.settings(config, data_dir=data_dir)
    database = folder.open_folder(chosen).database
    only = {} if tenant is None else {"tenant": tenant}
    found = of.sums(database, of.period(since, until), dimensions, only)
    numbers = ["requests", "input", "cached", "output", "rows", chosen.currency]
    rows = [
        [
            *(str(getattr(one, name)) for name in dimensions),
            *(f"{count:,}" for count in (one.requests, one.input_tokens, one.cached_tokens,
                                         one.output_tokens, one.rows)),
            one.cost,
        ]
        for one in found
    ]  # fmt: skip
    table([*dimensions, *numbers], rows, right=tuple(numbers))


EXPORT_EXAMPLES = """[bold]Examples[/]

openmaas usage export usage.parquet --since 2026-11

openmaas usage export - --tenant acme | head"""


@usage.command(epilog=EXPORT_EXAMPLES)
def export(
    file: Annotated[str, typer.Argument(help="Ends in .csv or .parquet; `-`: CSV to the screen.")],
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Writes the ledger's rows, one for each finished request, to a file."""
    from openmaas.tenancy import usage as of

    database = folder.open_folder(folder.settings(config, data_dir=data_dir)).database
    when: Period = of.period(since, until)
    if file == "-":
        for piece in of.csv_pieces(database, when, tenant):
            sys.stdout.buffer.write(piece)
        return
    path = Path(file)
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigurationError(f"{file}: its name ends in .csv or .parquet")
    try:
        with err.status(f"writing {file}"):
            if path.suffix == ".parquet":
                of.write_parquet(database, when, path, tenant)
            else:
                with path.open("wb") as opened:
                    opened.writelines(of.csv_pieces(database, when, tenant))
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror}") from None
    say(f"{file}: the usage from {when.first} to {when.last}")


@usage.command(epilog="[bold]Example[/]\n\nopenmaas usage statement acme 2026-11")
def statement(
    tenant: Annotated[str, typer.Argument(help="As `openmaas tenants list` names it.")],
    month: Annotated[str, typer.Argument(help="2026-11")],
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Shows what a tenant owes for a month."""
    from openmaas.tenancy import usage as of

    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    store.tenants.get(tenant)
    found = of.statement(store.database, tenant, month, chosen.currency)
    if json:
        say(msgspec.json.encode(found).decode())
        return
    out.print(f"[bold]{found.tenant}[/], {found.month}, amounts in {found.currency}\n")
    numbers = ["requests", "input", "cached", "output", "rows", "cost"]
    rows = [
        [
            one.project,
            one.model,
            *(f"{count:,}" for count in (one.requests, one.input_tokens, one.cached_tokens,
                                         one.output_tokens, one.rows)),
            one.cost,
            ", ".join(f"{unit} {price}" for unit, price in one.price.items() if price != "0"),
        ]
        for one in found.lines
    ]  # fmt: skip
    rows.append(["", "", "", "", "", "", "total", found.total, ""])
    table(["project", "model", *numbers, "price of a million"], rows, right=tuple(numbers))


SET_EXAMPLES = """[bold]Examples[/]

openmaas prices set smollm2-135m input=0.15 cached=0.05 output=0.60

openmaas prices set digits row=2

openmaas prices set '*' input=0.10 output=0.40

Units: input, cached, output (tokens), row, request, second (of training); what is not given is 0,
but cached, which is as input. Requests that ended before keep the price that they had."""


@prices.command("set", epilog=SET_EXAMPLES)
def set_(
    model: Annotated[str, typer.Argument(help="`*`: all that have no price of their own.")],
    pairs: Annotated[
        list[str], typer.Argument(metavar="UNIT=PRICE…", help="Prices of a million of each.")
    ],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Sets a model's price; a running server follows within a second."""
    from openmaas.tenancy.prices import Rates

    given = dict(pair.partition("=")[::2] for pair in pairs)
    try:
        rates = msgspec.convert(given, Rates, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"price: {error}") from None
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    made = store.prices.set(model, rates, folder.me())
    say(f"price {made.id} of {model} is in force")


@prices.command("list", epilog="[bold]Example[/]\n\nopenmaas prices list")
def list_prices(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Lists prices in all their versions; the last one of each model is in force."""
    from openmaas.tenancy.quota import money
    from openmaas.tenancy.usage import UNITS

    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    rows = [
        [str(one.id), one.model, _date(one.since), *(money(getattr(one, unit)) for unit in UNITS)]
        for one in store.prices.list()
    ]
    table(["price", "model", "since", *UNITS], rows, right=("price", *UNITS))


AUDIT_EXAMPLES = "[bold]Example[/]\n\nopenmaas audit --tenant acme --limit 20"


def audit(
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many, the newest.")] = 50,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Shows who changed tenants, keys, prices, models and deployments, the newest first."""
    from openmaas.audit import acts

    database = folder.open_folder(folder.settings(config, data_dir=data_dir)).database
    rows = [
        [
            _date(one.time),
            one.actor,
            one.act,
            one.tenant,
            one.object,
            " ".join(f"{name}={value}" for name, value in one.detail.items() if value),
        ]
        for one in acts(database, tenant=tenant, limit=limit)
    ]
    table(["when", "who", "what", "tenant", "which", "detail"], rows)


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
