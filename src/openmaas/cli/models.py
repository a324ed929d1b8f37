"""``openmaas models …``: what is on this machine, and how it comes there."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openmaas.cli import deployments, folder
from openmaas.cli.folder import ConfigFile, DataDir
from openmaas.cli.screen import PUBLIC, bars, say, size, table
from openmaas.errors import ConfigurationError, QuotaExhausted

if TYPE_CHECKING:
    from openmaas.app import Store
    from openmaas.config import Settings
    from openmaas.registry.manifest import Manifest
    from openmaas.registry.records import Version

app = typer.Typer(help="Pull, push, list, show and remove models.", no_args_is_help=True)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

Model = Annotated[str, typer.Argument(help="As `openmaas models list` names it.")]
Owner = Annotated[
    str,
    typer.Option(
        "--tenant", metavar="NAME", help="Whose it is: nobody else sees it. [dim]\\[everybody's][/]"
    ),
]
Deploy = Annotated[bool, typer.Option("--deploy", help="Has it served as well.")]

PULL_EXAMPLES = """[bold]Examples[/]

openmaas models pull smollm2-135m minilm-l6-v2 --deploy

openmaas models pull --starters --deploy

`openmaas models list --catalog` shows what there is; `models push` brings anything else."""


@app.command(epilog=PULL_EXAMPLES)
def pull(
    names: Annotated[list[str] | None, typer.Argument(help="Of the catalog.")] = None,
    starters: Annotated[
        bool, typer.Option("--starters", help="All that the catalog calls a starter.")
    ] = False,
    deploy: Deploy = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Fetches models of the catalog, checks and converts them, and registers them."""
    from openmaas.registry.catalog import Catalog
    from openmaas.registry.importing import import_entry

    catalog = Catalog.read()
    entries = [catalog.entry(name) for name in dict.fromkeys(names or [])]
    entries += [one for one in catalog.starters() if starters and one not in entries]
    if not entries:
        raise typer.BadParameter("name a model of the catalog, or say --starters")
    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    pulled: list[Version] = []
    with bars() as bar:
        for entry in entries:
            bar.begin(entry.name)
            have = _present(store, entry.name, entry.sha256)
            if have is None:
                digest, manifest = import_entry(
                    entry,
                    catalog,
                    store.artifacts,
                    progress=bar,
                    allow_https=chosen.allow_https_sources,
                )
                have = _register(store, entry.name, digest, manifest)
                bar.end(f"version {have.version}, {have.format}, {size(have.size)}")
            else:
                bar.end(f"version {have.version} is here already")
            pulled.append(have)
    if deploy:
        _deploy(chosen, store, pulled)


PUSH_EXAMPLES = """[bold]Examples[/]

openmaas models push churn ./churn.onnx --licence Proprietary --deploy

openmaas models push my-llm ./folder-with-safetensors

openmaas models push qwen hf:ORGANISATION/REPOSITORY@REVISION

A file's format is recognised by its content: GGUF, OpenVINO IR, ONNX, Keras, safetensors."""


@app.command(epilog=PUSH_EXAMPLES)
def push(
    name: Annotated[str, typer.Argument(help="What to call it here.")],
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="A file or folder, or pypi:, hf:, https: …")
    ],
    deploy: Deploy = False,
    tenant: Owner = PUBLIC,
    task: Annotated[
        str | None,
        typer.Option(help="Refuse it unless it is for: chat, embed, predict or classify."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Written down with the version.")] = "",
    sha256: Annotated[
        str | None, typer.Option(help="Refuse it unless its bytes have this sum.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Registers a model of your own as a name's next version."""
    from openmaas.registry.importing import import_model

    if NAME.match(name) is None:
        raise typer.BadParameter("a name has letters, digits, . _ - and at most 64 of them")
    chosen = folder.settings(config, data_dir=data_dir)
    store = folder.open_folder(chosen)
    remote = re.match(r"(file|pypi|hf|https):", source)
    with bars() as bar:
        bar.begin(name)
        digest, manifest = import_model(
            source if remote else Path(source),
            store.artifacts,
            progress=bar,
            allow_https=chosen.allow_https_sources,
            expect_sha256=sha256,
        )
        if task is not None and manifest.task != task:
            _forget(store, digest)
            raise ConfigurationError(f"{source} is a model for {manifest.task}, not for {task}")
        have = _register(store, name, digest, manifest, licence, tenant)
        bar.end(f"version {have.version}, {have.format}, {size(have.size)}")
    if deploy:
        _deploy(chosen, store, [have])


@app.command(
    "list", epilog="[bold]Examples[/]\n\nopenmaas models list\n\nopenmaas models list --catalog"
)
def list_(
    catalog: Annotated[
        bool, typer.Option("--catalog", help="What `models pull` knows by name instead.")
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Lists the models on this machine, every version of them."""
    if catalog:
        _list_catalog()
        return
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    served = {one.name for one in store.deployments.all()}
    rows = [
        [
            one.label,
            str(one.version),
            one.task,
            one.format,
            size(one.size),
            one.licence,
            "yes" if (one.tenant, one.model, one.version) in served else "",
        ]
        for one in store.records.versions()
    ]
    if rows:
        columns = ["model", "version", "task", "format", "size", "licence", "deployed"]
        table(columns, rows, right=("version", "size"))
    else:
        say("No model is here yet:  openmaas models pull --starters")


def _list_catalog() -> None:
    from openmaas.registry.catalog import Catalog

    rows = [
        [one.name, one.task, size(one.size), one.licence, one.source.partition(":")[0],
         "yes" if one.starter else "", one.description]
        for one in Catalog.read().entries.values()
    ]  # fmt: skip
    columns = ["name", "task", "size", "licence", "source", "starter", "what it is"]
    table(columns, rows, right=("size",))


@app.command(epilog="[bold]Example[/]\n\nopenmaas models show minilm-l6-v2")
def show(
    model: Model,
    version: Annotated[int | None, typer.Option(help="[dim]\\[the newest][/]")] = None,
    tenant: Owner = PUBLIC,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Shows where a version came from, what it takes and gives, and how it was verified."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    one = store.records.version(model, version, tenant)
    manifest = store.artifacts.manifest(one.digest)
    rows = [
        ["model", f"{one.label} version {one.version}"],
        ["task", one.task],
        ["format", f"{one.format} ({manifest.architecture})"],
        ["licence", one.licence or "not given"],
        ["source", one.source],
        ["source sha256", manifest.source_sha256],
        ["artifact", one.digest],
        ["registered", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.created))],
    ]
    rows += [["input", f"{p.name} {p.datatype} {p.shape}"] for p in manifest.inputs]
    rows += [["output", f"{p.name} {p.datatype} {p.shape}"] for p in manifest.outputs]
    if manifest.context_tokens:
        rows.append(["context", f"{manifest.context_tokens} tokens"])
    if manifest.dimensions:
        rows.append(["dimensions", str(manifest.dimensions)])
    if manifest.precision:
        rows.append(["precision", manifest.precision])
    rows.append(["verified", _verified(manifest)])
    if manifest.converted_by:
        tools = ", ".join(f"{name} {which}" for name, which in manifest.converted_by.items())
        rows.append(["converted by", tools])
    rows += [["file", f"{f.path}, {size(f.size)}"] for f in manifest.files]
    for label, value in rows:
        say(f"{label:<14} {value}")


def _verified(manifest: Manifest) -> str:
    done = manifest.verification
    if done is None:
        return "stored as it came"
    return (
        f"against {done.against}: {done.samples} samples, largest difference "
        f"{done.max_abs_error:.2g} ({done.compared})"
    )


@app.command(
    epilog="[bold]Examples[/]\n\nopenmaas models remove digits --version 1\n\n"
    "openmaas models remove digits"
)
def remove(
    model: Model,
    version: Annotated[int | None, typer.Option(help="[dim]\\[all of them][/]")] = None,
    tenant: Owner = PUBLIC,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Removes a version or a whole model from this machine; a deployed one is refused."""
    store = folder.open_folder(folder.settings(config, data_dir=data_dir))
    gone = store.records.remove(model, folder.me(), version, tenant)
    for digest in gone:
        store.artifacts.remove(digest)
    say(f"{model} is removed" if version is None else f"{model} version {version} is removed")


def _present(store: Store, name: str, sha256: str) -> Version | None:
    """The newest version of a name, if it was made from the very bytes that are wanted."""
    found = store.records.versions(name, PUBLIC)
    if not found or store.artifacts.manifest(found[-1].digest).source_sha256 != sha256:
        return None
    return found[-1]


def _register(
    store: Store,
    name: str,
    digest: str,
    manifest: Manifest,
    licence: str = "",
    tenant: str = PUBLIC,
) -> Version:
    from openmaas.registry.records import Version

    most = store.tenants.get(tenant).quota.stored_bytes if tenant else None
    try:
        return store.records.add(
            Version(
                model=name,
                version=0,
                digest=digest,
                task=manifest.task,
                format=manifest.format,
                source=manifest.source,
                licence=licence or manifest.licence,
                size=manifest.size,
                created=0,
                tenant=tenant,
            ),
            folder.me(),
            most_bytes=most,
        )
    except QuotaExhausted:
        _forget(store, digest)
        raise


def _forget(store: Store, digest: str) -> None:
    """Removes an artifact that no version refers to."""
    if digest not in {one.digest for one in store.records.versions()}:
        store.artifacts.remove(digest)


def _deploy(chosen: Settings, store: Store, pulled: list[Version]) -> None:
    """Has them served; what is served already stays as it is, options included."""
    served = {one.name: one for one in store.deployments.all()}
    for one in pulled:
        have = served.get((one.tenant, one.model, one.version))
        if have is not None:
            say(f"{one.label} version {one.version} is deployed on {have.runtime}")
            continue
        deployments.deploy_and_report(
            chosen, store, one.model, version=one.version, tenant=one.tenant
        )
    deployments.say_when(chosen)
