"""T1: every route × {no key, bad, revoked, expired, another tenant's, too small a scope}.

A route that is not in the table fails. Foreign and absent must be indistinguishable.
"""

from __future__ import annotations

import functools
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.conftest import deploy_echo
from tests.processes import ServerProcess, cli, serving


class Route(NamedTuple):
    """Whose key it takes, and what is sent where the answer depends on whose a thing is."""

    scope: str | None
    body: Any = None


CHAT = {"model": "MODEL", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
INPUT = {"model": "MODEL", "input": "hi"}
V2 = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}
TENANT = "/v1/tenants/{tenant}"
TABLE = {
    ("GET", "/health"): Route(None),
    ("GET", "/openapi.json"): Route(None),
    ("GET", "/v2"): Route(None),
    ("GET", "/v2/health/live"): Route(None),
    ("GET", "/v2/health/ready"): Route(None),
    ("GET", "/metrics"): Route("admin"),
    ("POST", "/v1/chat/completions"): Route("inference", CHAT),
    ("POST", "/v1/completions"): Route("inference", {"model": "MODEL", "prompt": "hi"}),
    ("POST", "/v1/embeddings"): Route("inference", INPUT),
    ("POST", "/v1/files"): Route("inference"),
    **{("GET", f"/v1/files{what}"): Route("inference")
       for what in ("", "/{file}", "/{file}/content")},
    ("DELETE", "/v1/files/{file}"): Route("inference"),
    ("POST", "/v1/batches"): Route(
        "inference",
        {"input_file_id": "FILE", "endpoint": "/v1/completions", "completion_window": "24h"},
    ),
    **{("GET", f"/v1/batches{what}"): Route("inference") for what in ("", "/{batch}")},
    ("POST", "/v1/batches/{batch}/cancel"): Route("inference", {}),
    ("POST", "/v1/classify"): Route("inference", INPUT | {"labels": ["a", "b"]}),
    ("POST", "/v1/sentiment"): Route("inference", INPUT),
    ("POST", "/v1/entities"): Route("inference", INPUT),
    ("POST", "/v1/summarize"): Route("inference", INPUT),
    ("POST", "/v1/translate"): Route("inference", INPUT | {"target": "pt"}),
    ("POST", "/v1/rerank"): Route(
        "inference", {"model": "MODEL", "query": "a", "documents": ["b"]}
    ),
    ("POST", "/v1/tokenize"): Route("inference", INPUT),
    ("GET", "/v1/models"): Route("inference"),
    ("GET", "/v1/models/{model}"): Route("inference"),
    ("POST", "/v1/models/{model}:predict"): Route("inference", {"instances": [[1]]}),
    ("POST", "/v1/models/{model}:explain"): Route("inference", {"instances": [[1]]}),
    ("POST", "/v1/explain"): Route("inference", INPUT),
    ("POST", "/v1/explain/model"): Route("train", {"model": "MODEL", "dataset": "DATASET"}),
    ("POST", "/models/{model}"): Route("inference", {"inputs": "hi"}),
    ("POST", "/models/{model}/pipeline/{task}"): Route("inference", {"inputs": "hi"}),
    ("POST", "/v2/models/{model}/infer"): Route("inference", V2),
    ("POST", "/v2/models/{model}/versions/{version}/infer"): Route("inference", V2),
    **{
        ("GET", f"/v2/models/{{model}}{version}{what}"): Route("inference")
        for version in ("", "/versions/{version}")
        for what in ("", "/ready", "/config", "/stats")
    },
    ("GET", "/v2/models/stats"): Route("inference"),
    ("POST", "/v2/repository/index"): Route("inference", {}),
    ("POST", "/v2/repository/models/{model}/load"): Route("manage", {}),
    ("POST", "/v2/repository/models/{model}/unload"): Route("manage", {}),
    ("POST", "/v1/uploads"): Route("train", {"name": "x.csv", "size": 1}),
    ("GET", "/v1/uploads"): Route("train"),
    ("GET", "/v1/uploads/{upload}"): Route("train"),
    ("PATCH", "/v1/uploads/{upload}"): Route("train"),
    ("DELETE", "/v1/uploads/{upload}"): Route("train"),
    ("POST", "/v1/datasets"): Route("train", {"name": "x", "upload": "up_0"}),
    ("GET", "/v1/datasets"): Route("train"),
    ("GET", "/v1/datasets/{dataset}"): Route("train"),
    ("GET", "/v1/datasets/{dataset}/preview"): Route("train"),
    ("GET", "/v1/datasets/{dataset}/budget"): Route("train"),
    ("PUT", "/v1/datasets/{dataset}/budget"): Route("train", {"epsilon": 1, "delta": 1e-5}),
    ("DELETE", "/v1/datasets/{dataset}"): Route("train"),
    ("POST", "/v1/datasets/{dataset}/erase"): Route("train", {"confirm": "DATASET"}),
    ("POST", "/v1/models"): Route("train", {"name": "x", "upload": "up_0"}),
    **{("GET", f"/v1/models/{{model}}/versions{what}"): Route("train")
       for what in ("", "/{version}", "/{version}/curve.png")},
    ("POST", "/v1/models/{model}/versions/{version}/promote"): Route("train", {}),
    **{("GET", f"/v1/training/jobs{what}"): Route("train")
       for what in ("", "/{job}", "/{job}/events", "/{job}/curve.png")},
    ("POST", "/v1/training/jobs"): Route("train", {"model": "x", "dataset": "ds_0"}),
    **{("POST", f"/v1/training/jobs/{{job}}/{what}"): Route("train", {})
       for what in ("pause", "resume", "cancel")},
    **{("GET", f"/v1/training/sessions{what}"): Route("train") for what in ("", "/{session}")},
    ("DELETE", "/v1/training/sessions/{session}"): Route("train"),
    ("POST", "/v1/training/sessions"): Route("train", {"model": "x", "network": {}}),
    ("POST", "/v1/training/sessions/{session}/calls"): Route(
        "train", {"calls": [{"call": "optim_step"}]}
    ),
    **{
        ("POST", f"/v1/training/sessions/{{session}}/{what}"): Route("train", {})
        for what in (
            "forward", "forward_backward", "optim_step", "predict", "weights", "gradients",
            "save_checkpoint", "load_checkpoint", "publish", "resume",
        )
    },
    ("GET", "/v1/deployments"): Route("manage"),
    ("POST", "/v1/deployments"): Route("manage", {"model": "MODEL"}),
    ("DELETE", "/v1/deployments/{model}"): Route("manage"),
    ("DELETE", "/v1/models/{model}/versions/{version}"): Route("manage"),
    ("GET", "/v1/models/{model}/aliases"): Route("manage"),
    ("GET", "/v1/models/{model}/aliases/{alias}"): Route("manage"),
    ("PUT", "/v1/models/{model}/aliases/{alias}"): Route(
        "manage", {"targets": [{"version": 1}], "wait": 0}
    ),
    ("POST", "/v1/models/{model}/aliases/{alias}/rollback"): Route("manage", {"wait": 0}),
    ("DELETE", "/v1/models/{model}/aliases/{alias}"): Route("manage"),
    ("GET", "/v1/quota"): Route("inference"),
    ("GET", "/v1/prices"): Route("inference"),
    ("POST", "/v1/prices"): Route("admin", {"model": "x", "rates": {}}),
    ("GET", "/v1/tenants"): Route("admin"),
    ("POST", "/v1/tenants"): Route("admin", {"id": "acme"}),
    ("GET", TENANT): Route("manage"),
    ("PATCH", TENANT): Route("admin", {}),
    ("DELETE", TENANT): Route("admin"),
    ("GET", f"{TENANT}/projects"): Route("manage"),
    ("POST", f"{TENANT}/projects"): Route("manage", {"id": "shop"}),
    ("GET", f"{TENANT}/projects/{{project}}"): Route("manage"),
    ("PATCH", f"{TENANT}/projects/{{project}}"): Route("manage", {"quota": {}}),
    ("DELETE", f"{TENANT}/projects/{{project}}"): Route("manage"),
    ("GET", f"{TENANT}/keys"): Route("manage"),
    ("POST", f"{TENANT}/keys"): Route("manage", {"name": "x"}),
    ("GET", f"{TENANT}/keys/{{key}}"): Route("manage"),
    ("PATCH", f"{TENANT}/keys/{{key}}"): Route("manage", {"quota": {}}),
    ("POST", f"{TENANT}/keys/{{key}}/rotate"): Route("manage", {}),
    ("DELETE", f"{TENANT}/keys/{{key}}"): Route("manage"),
    ("PUT", f"{TENANT}/keys/{{key}}/redaction"): Route("manage", {"action": "report"}),
    ("GET", f"{TENANT}/privacy"): Route("manage"),
    ("PUT", f"{TENANT}/privacy"): Route("manage", {}),
    ("POST", "/v1/redact"): Route("inference", {"text": "hi"}),
    ("POST", f"{TENANT}/erase"): Route("manage", {"confirm": "not this one"}),
    **{("GET", f"{TENANT}/{what}"): Route("manage")
       for what in ("erasures", "export", "privacy/report", "retained", "retained/{request}")},
    **{("DELETE", f"{TENANT}/{what}"): Route("manage")
       for what in ("retained", "retained/{request}")},
    ("GET", "/v1/erasures/key"): Route(None),
    ("GET", "/v1/erasures/{erasure}"): Route(None),
    **{("GET", f"{TENANT}/{what}"): Route("manage")
       for what in ("usage", "usage/rows", "usage/export", "statements/{month}", "audit")},
    **{("GET", f"/v1/{what}"): Route("admin")
       for what in ("usage", "usage/rows", "usage/export", "audit")},
}  # fmt: skip
ROUTES = list(TABLE)
IDS = [f"{method} {path}" for method, path in ROUTES]
OF_MODEL = [route for route in ROUTES if "{model}" in route[1] or "MODEL" in str(TABLE[route].body)]
OF_TENANT = [route for route in ROUTES if "{tenant}" in route[1] and TABLE[route].scope == "manage"]


@pytest.fixture(scope="module")
def house(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Tenants acme, which has a model of its own, and other."""
    data = tmp_path_factory.mktemp("access") / "data"
    shutil.copytree(digits_only, data)
    cli(data, "tenants", "create", "acme")
    cli(data, "tenants", "create", "other")
    deploy_echo(data)
    deploy_echo(data, "private", tenant="acme")
    with serving(data) as server:
        yield server


@pytest.fixture(scope="module")
def keys(house: ServerProcess) -> dict[str, str]:
    """Secrets: of each scope, revoked, expired, and of both tenants."""
    made = {}
    for tenant in ("acme", "other", "default"):
        for scope in ("inference", "train", "manage"):
            body = {"name": scope, "scopes": ["inference", scope]}
            if scope == "train":
                body["scopes"] = ["train"]
            answer = house.client.post(f"/v1/tenants/{tenant}/keys", json=body).json()
            made[f"{tenant} {scope}"] = answer["secret"]
    body = {"name": "gone", "scopes": ["inference", "manage", "admin"]}
    gone = house.client.post("/v1/tenants/default/keys", json=body).json()
    house.client.delete(f"/v1/tenants/default/keys/{gone['key']['id']}")
    made["revoked"] = gone["secret"]
    brief = house.client.post("/v1/tenants/default/keys", json=body | {"expires_in": 1}).json()
    made["expired"] = brief["secret"]
    house.wait_until(lambda: time.time() > brief["key"]["expires"], 3)
    return made


def ask(
    house: ServerProcess, route: tuple[str, str], headers: dict[str, str], **names: str
) -> httpx.Response:
    method, path = route
    given = {"model": "echo", "version": "1", "task": "summarization", "tenant": "default",
             "project": "default", "key": "key_0", "month": "2026-11", "upload": "up_0",
             "dataset": "ds_0", "session": "session_0", "job": "job_0", "file": "file-0",
             "batch": "batch_0", "alias": "live", "erasure": "erasure_0",
             "request": "req_0"} | names  # fmt: skip
    url = re.sub(r"{(\w+)}", lambda match: given[match[1]], path)
    body = TABLE[route].body
    if isinstance(body, dict) and "model" in body:
        body = body | {"model": given["model"]}
    if body == {"confirm": "DATASET"}:
        body = {"confirm": given["dataset"]}
    if isinstance(body, dict) and "input_file_id" in body:
        body = body | {"input_file_id": given["file"]}
    return anybody().request(method, house.url + url, headers=headers, json=body)


@functools.cache
def anybody() -> httpx.Client:
    """Without a key; one, as it takes longer to make than to ask."""
    return httpx.Client(timeout=30)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_every_route_is_in_the_table(house: ServerProcess) -> None:
    document = house.client.get("/openapi.json").json()
    real = {
        (method.upper(), path): operation["x-openmaas-scope"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert real == {route: row.scope for route, row in TABLE.items()}


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_no_key_and_keys_that_are_no_good(
    house: ServerProcess, keys: dict[str, str], route: tuple[str, str]
) -> None:
    for headers in (
        {},
        bearer("om-wrong"),
        {"Authorization": f"Basic {house.key}"},
        {"x-api-key": "om-wrong"},
        bearer(house.key[:-1]),
        bearer(keys["revoked"]),
        bearer(keys["expired"]),
    ):
        answer = ask(house, route, headers)
        if TABLE[route].scope is None:
            assert answer.status_code != 401
        else:
            assert answer.status_code == 401, headers
            assert "error" in answer.json()


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_too_small_a_scope(
    house: ServerProcess, keys: dict[str, str], route: tuple[str, str]
) -> None:
    enough = {
        "inference": ["inference", "manage"],
        "train": ["train"],
        "manage": ["manage"],
        "admin": [],
    }
    scope = TABLE[route].scope
    for name in ("inference", "train", "manage"):
        answer = ask(house, route, bearer(keys[f"default {name}"]), project="none", model="none")
        if scope is not None and name not in enough[scope]:
            assert answer.status_code == 403, name
            assert scope in answer.text
        else:
            assert answer.status_code not in (401, 403), (name, answer.text)


@pytest.mark.parametrize("route", OF_TENANT, ids=" ".join)
def test_another_tenant_looks_absent(
    house: ServerProcess, keys: dict[str, str], route: tuple[str, str]
) -> None:
    """Its tenant, its projects and its keys, by their real names."""
    key = house.client.get("/v1/tenants/acme/keys").json()["data"][0]["id"]
    foreign = ask(house, route, bearer(keys["other manage"]), tenant="acme", key=key)
    absent = ask(house, route, bearer(keys["other manage"]), tenant="nope", key=key)
    assert foreign.status_code == absent.status_code == 404
    assert foreign.text.replace("acme", "nope") == absent.text
    if "{key}" in route[1]:  # another's key below one's own tenant
        foreign = ask(house, route, bearer(keys["other manage"]), tenant="other", key=key)
        absent = ask(house, route, bearer(keys["other manage"]), tenant="other", key="key_f")
        assert foreign.status_code == absent.status_code == 404
        assert foreign.text.replace(key, "key_f") == absent.text


@pytest.mark.parametrize("route", OF_MODEL, ids=" ".join)
def test_another_tenants_model_looks_absent(
    house: ServerProcess, keys: dict[str, str], route: tuple[str, str]
) -> None:
    trains = TABLE[route].scope == "train"
    secret = bearer(keys["other train" if trains else "other manage"])
    foreign = ask(house, route, secret, model="private")
    absent = ask(house, route, secret, model="nothing")
    assert foreign.status_code == absent.status_code == 404
    assert foreign.text.replace("private", "nothing") == absent.text
    if not route[1].endswith(("/promote", "/curve.png", "/jobs", "/sessions")):
        own = ask(house, route, bearer(keys[f"acme {'train' if trains else 'inference'}"]),
                  model="private")  # fmt: skip
        assert own.status_code != 404 or "repository" in route[1]


@pytest.fixture(scope="module")
def acmes(house: ServerProcess, keys: dict[str, str]) -> dict[str, str]:
    """Things of acme's that have ids, by their names in paths."""
    made = {}
    with httpx.Client(base_url=house.url, headers=bearer(keys["acme train"])) as client:

        def sent(content: bytes) -> str:
            body = {"name": "x.csv", "size": len(content)}
            id = client.post("/v1/uploads", json=body).json()["id"]
            client.patch(f"/v1/uploads/{id}", content=content, headers={"Upload-Offset": "0"})
            return str(id)

        made["upload"] = sent(b"x")
        table = sent(b"text,label\na,0\nb,1\n")
        body = {"name": "x", "upload": table}
        made["dataset"] = client.post("/v1/datasets", json=body).json()["id"]
        one = f"/v1/datasets/{made['dataset']}"
        house.wait_until(lambda: client.get(one).json()["state"] == "ready", 30)
        body = {"model": "x", "dataset": made["dataset"], "recipe": "text_embeddings"}
        made["job"] = client.post("/v1/training/jobs", json=body).json()["id"]
    return made


OF_DATA = [route for route in ROUTES if re.search("{(upload|dataset|job)}", route[1])]


@pytest.mark.parametrize("route", OF_DATA, ids=" ".join)
def test_another_tenants_data_look_absent(
    house: ServerProcess, keys: dict[str, str], acmes: dict[str, str], route: tuple[str, str]
) -> None:
    secret = bearer(keys["other train"])
    foreign = ask(house, route, secret, **acmes)
    absent = ask(house, route, secret, upload="up_0", dataset="ds_0", job="job_0")
    assert foreign.status_code == absent.status_code == 404
    text = foreign.text.replace(acmes["upload"], "up_0").replace(acmes["dataset"], "ds_0")
    text = text.replace(acmes["job"], "job_0")
    assert text == absent.text
    if route[0] == "GET" and "curve" not in route[1]:  # which only a finished job has
        assert ask(house, route, bearer(keys["acme train"]), **acmes).status_code == 200
        assert acmes["dataset"] not in ask(house, ("GET", "/v1/datasets"), secret).text
        assert acmes["upload"] not in ask(house, ("GET", "/v1/uploads"), secret).text


@pytest.fixture(scope="module")
def acmes_batch(house: ServerProcess, keys: dict[str, str]) -> dict[str, str]:
    """A file of acme's and a batch that failed because of it."""
    with httpx.Client(base_url=house.url, headers=bearer(keys["acme inference"])) as client:
        files = {"file": ("x.jsonl", b"no JSON")}
        file = client.post("/v1/files", files=files, data={"purpose": "batch"}).json()["id"]
        body = TABLE["POST", "/v1/batches"].body | {"input_file_id": file}
        batch = client.post("/v1/batches", json=body).json()["id"]
        one = f"/v1/batches/{batch}"
        house.wait_until(lambda: client.get(one).json()["status"] == "failed", 30)
    return {"file": file, "batch": batch}


OF_BATCH = [
    route for route in ROUTES
    if re.search("{(file|batch)}", route[1]) or "FILE" in str(TABLE[route].body)
]  # fmt: skip


@pytest.mark.parametrize("route", OF_BATCH, ids=" ".join)
def test_another_tenants_batches_look_absent(
    house: ServerProcess, keys: dict[str, str], acmes_batch: dict[str, str], route: tuple[str, str]
) -> None:
    secret = bearer(keys["other inference"])
    foreign = ask(house, route, secret, **acmes_batch)
    absent = ask(house, route, secret)
    assert foreign.status_code == absent.status_code == 404
    text = foreign.text.replace(acmes_batch["file"], "file-0")
    assert text.replace(acmes_batch["batch"], "batch_0") == absent.text
    if route[0] == "GET":
        own = bearer(keys["acme inference"])
        assert ask(house, route, own, **acmes_batch).status_code == 200
        assert acmes_batch["file"] not in ask(house, ("GET", "/v1/files"), secret).text
        assert acmes_batch["batch"] not in ask(house, ("GET", "/v1/batches"), secret).text


def test_data_is_not_made_of_another_tenants_upload(
    house: ServerProcess, keys: dict[str, str], acmes: dict[str, str]
) -> None:
    secret = bearer(keys["other train"])
    with httpx.Client(base_url=house.url, headers=secret) as client:
        body = {"name": "x", "upload": acmes["upload"]}
        foreign = client.post("/v1/datasets", json=body)
        absent = client.post("/v1/datasets", json=body | {"upload": "up_0"})
    assert foreign.status_code == absent.status_code == 400
    assert foreign.text.replace(acmes["upload"], "up_0") == absent.text


def test_lists_hold_what_is_ones_own(house: ServerProcess, keys: dict[str, str]) -> None:
    def names(who: str) -> set[str]:
        answer = ask(house, ("GET", "/v1/models"), bearer(keys[who]))
        return {one["id"] for one in answer.json()["data"]}

    assert names("acme inference") == {"echo", "private"}
    assert names("other inference") == {"echo"}
    assert set(house.client.get("/health").json()["models"]) == {"echo"}
    for path in ("/v2/models/stats", "/v2/repository/index"):
        method = "POST" if "index" in path else "GET"
        answer = ask(house, (method, path), bearer(keys["other inference"]))
        assert "private" not in answer.text


def test_a_key_for_some_models_calls_no_others(house: ServerProcess) -> None:
    body = {"name": "one", "models": ["private"]}
    secret = house.client.post("/v1/tenants/acme/keys", json=body).json()["secret"]
    chat = ("POST", "/v1/chat/completions")
    assert ask(house, chat, bearer(secret), model="private").status_code == 200
    assert ask(house, chat, bearer(secret), model="echo").status_code == 403
    listed = ask(house, ("GET", "/v1/models"), bearer(secret)).json()["data"]
    assert [one["id"] for one in listed] == ["private"]


def test_a_manager_gives_no_scope_away_that_it_lacks(
    house: ServerProcess, keys: dict[str, str]
) -> None:
    with httpx.Client(base_url=house.url, headers=bearer(keys["default manage"])) as client:
        body = {"name": "x", "scopes": ["admin"]}
        assert client.post("/v1/tenants/default/keys", json=body).status_code == 403
        made = house.client.post("/v1/tenants/default/keys", json=body).json()["key"]["id"]
        path = f"/v1/tenants/default/keys/{made}"
        assert client.post(f"{path}/rotate").status_code == 403
        assert client.patch(path, json={"quota": {}}).status_code == 403
        assert client.delete(path).status_code == 403
        assert client.delete("/v1/tenants/default").status_code == 403


def test_request_ids_and_unknown_paths(house: ServerProcess) -> None:
    for path in ("/", "/nothing", "/v1/nothing", "/v2/nothing", "/v1/chat/completions/x"):
        answer = house.client.get(path)
        assert answer.status_code == 404
        assert answer.headers["x-request-id"].startswith("req_")
        assert "error" in answer.json()
    answer = house.client.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "POST" in answer.json()["error"]["message"]
