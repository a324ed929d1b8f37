"""How a whole model behaves on rows of a data set: ``POST /v1/explain/model``."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from openmaas.encryption.memory import Memory
from openmaas.errors import InvalidRequest, ModelNotFound, PermissionDenied, RateLimited
from openmaas.explaining.behaviour.report import DatasetUsed, Report
from openmaas.explaining.behaviour.report_html import page
from openmaas.explaining.behaviour.whole import Numbers, whole
from openmaas.explaining.explanation import Cost
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.explain_model.asking import Answers, Form, explainable, form
from openmaas.gateway.explain_model.child import confined
from openmaas.gateway.explain_model.data import Data, Trained, known_columns
from openmaas.gateway.explain_model.plan import ExplainModelBody, Plan, check, plan
from openmaas.gateway.explain_model.subject import Gathered, gather
from openmaas.gateway.tasks.common import event
from openmaas.serving import ranking
from openmaas.serving.asking import Asking
from openmaas.training.data import Description
from openmaas.training.datasets import DatasetRecord, Datasets
from openmaas.training.jobs import Jobs
from openmaas.training.publishing import Publisher
from openmaas.training.session_records import SessionRecords

AT_ONCE = 2  # of one tenant
LOOK_SECONDS = 0.25  # between two words on how far it is
PICTURE = "openmaas.explaining.behaviour.report_picture"
PICTURE_BYTES = 16 << 20
POLICY = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")


class ExplanationProgress(Struct, frozen=True):
    done: int  # rows and texts that went through models
    total: int  # at the most
    object: Literal["explanation.progress"] = "explanation.progress"


class Case(NamedTuple):
    """A model, a data set, and what is to be said of them."""

    body: ExplainModelBody
    model: Asking
    embedding: Asking | None
    how: Form
    trained: Trained
    record: DatasetRecord
    about: Description
    plan: Plan
    id: str


class Routes:
    """The handler, over what it reads."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._running: Counter[str] = Counter()  # by tenant

    async def explain(self, exchange: Exchange) -> None:
        body = exchange.decode(await exchange.body(), ExplainModelBody)
        check(body)
        caller = exchange.caller
        exchange.pipeline.find(caller, body.model)  # an absent one is absent before all else
        if not caller.may("inference"):
            raise PermissionDenied("this key reads data sets; to ask a model it takes inference")
        exchange.ticket.priority = "batch"
        case = await exchange.complete(self._case(exchange, body))
        if body.dry_run:
            await exchange.respond_json(_report(case, case.plan, None, [], 0, None))
            return
        if self._running[caller.tenant] >= AT_ONCE:
            raise RateLimited(
                f"{AT_ONCE} models of this tenant are being explained, as many as may",
                retry_after=10,
            )
        self._running[caller.tenant] += 1
        try:
            await self._answer(exchange, case)
        finally:
            self._running[caller.tenant] -= 1

    async def _case(self, exchange: Exchange, body: ExplainModelBody) -> Case:
        ticket, pipeline = exchange.ticket, exchange.pipeline
        tenant = exchange.caller.tenant
        what = "be explained by rows of a data set"
        model = await pipeline.asking(ticket, body.model, what, explainable)
        deployment = pipeline.find(exchange.caller, f"{model.name}@{model.version}")
        trained = Trained()
        if deployment.tenant == tenant:  # a public one's data set is nobody's here
            trained = await asyncio.to_thread(
                self._data.trained, tenant, model.name, deployment.number
            )
        how = form(model.info, trained.labels)
        record = await asyncio.to_thread(self._data.find, tenant, body.dataset, trained)
        assert record.description is not None
        embedding = None
        if how.reads == "texts" and (body.parts is None or "neighbours" in body.parts):
            try:
                embedding = await pipeline.asking(ticket, None, "embed texts", ranking.embeds)
            except ModelNotFound:
                embedding = None
        known = known_columns(trained, record.description)
        if body.target is not None:
            known = known._replace(target=body.target)
        about = record.description
        name = None if embedding is None else embedding.name
        made = plan(body, how, about.splits, name)
        id = f"expl_{exchange.request_id.removeprefix('req_')}"
        return Case(body, model, embedding, how, known, record, about, made, id)

    async def _answer(self, exchange: Exchange, case: Case) -> None:
        answers = Answers(case.model, case.how)
        work = self._work(case, answers)
        if case.body.stream:
            await exchange.relay(_told(work, lambda: answers.passes, case.plan.passes))
            return
        render = case.body.render
        if render == "png":
            picture = await exchange.complete(_picture(work, case.body.dark))
            await exchange.respond(picture, content_type=b"image/png")
            return
        report = await exchange.complete(work)
        if render == "html":
            html = page(report).encode()
            kind = b"text/html; charset=utf-8"
            await exchange.respond(html, content_type=kind, headers=[POLICY])
            return
        await exchange.respond_json(report)

    async def _work(self, case: Case, answers: Answers) -> Report:
        start = time.monotonic()
        body = case.body
        gathered = await gather(
            self._data, case.body, case.how, case.trained, case.record, case.plan,
            answers, case.embedding,
        )  # fmt: skip
        answers.keep(gathered.subject.rows.inputs)
        found = await whole(
            gathered.subject,
            gathered.training,
            gathered.plan.parts,
            Numbers(body.repeats, body.seed, body.bins),
        )
        seconds = round(time.monotonic() - start, 3)
        notes = [*gathered.notes, *found.notes]
        made = _report(case, gathered.plan, gathered, notes, answers.passes, seconds)
        return msgspec.structs.replace(
            made,
            metrics=found.metrics,
            importance=found.importance,
            calibration=found.calibration,
            confusion=found.confusion,
            neighbours=found.neighbours,
        )


def _report(
    case: Case,
    made: Plan,
    gathered: Gathered | None,
    notes: list[str],
    passes: int,
    seconds: float | None,
) -> Report:
    """One without its parts; of what has not run yet (no ``seconds``), what it will take."""
    model, record = case.model, case.record
    target = case.trained.target or case.about.target or ""
    return Report(
        id=case.id,
        model=model.name,
        version=model.version,
        task=model.info.task,
        dataset=DatasetUsed(
            id=record.id,
            name=record.name,
            split=case.body.split,
            target=target if gathered is None else gathered.target,
            rows=case.about.splits.get(case.body.split, 0),
        ),
        parts=made.parts,
        rows=made.rows,
        seed=case.body.seed,
        metrics={},
        importance=None,
        calibration=None,
        confusion=None,
        neighbours=None,
        left_out=made.left_out,
        notes=notes,
        cost=Cost(forward_passes=made.passes if seconds is None else passes, seconds=seconds),
    )


async def _told(
    work: Coroutine[Any, Any, Report], done: Callable[[], int], total: int
) -> AsyncGenerator[bytes, None]:
    """How far it is, then the report."""
    task = asyncio.ensure_future(work)
    told = -1
    try:
        while not task.done():
            if done() != told:
                told = done()
                yield event(ExplanationProgress(min(told, total), total))
            await asyncio.wait({task}, timeout=LOOK_SECONDS)
        report = task.result()
        yield event(ExplanationProgress(total, total)) + event(report)
    finally:
        task.cancel()


async def _picture(work: Coroutine[Any, Any, Report], dark: bool) -> bytes:
    asked = msgspec.json.encode({"report": await work, "dark": dark})
    picture = await confined(PICTURE, asked, most_bytes=PICTURE_BYTES)
    if not picture.startswith(b"\x89PNG"):
        raise InvalidRequest(
            "matplotlib is not installed on this server, so that nothing is drawn; its operator "
            "installs it: make install, or pip install 'openmaas[train]'",
            param="render",
        )
    return picture


def endpoints(
    datasets: Datasets,
    publisher: Publisher,
    jobs: Jobs,
    sessions: SessionRecords,
    memory: Memory,
) -> list[Endpoint]:
    at = Routes(Data(datasets, publisher, jobs, sessions, memory))
    return [
        Endpoint(
            "POST", "/v1/explain/model", at.explain, "openai",
            "How a whole model behaves on rows of a data set", scope="train",
            body=ExplainModelBody, response=Report, task="explain",
        )
    ]  # fmt: skip
