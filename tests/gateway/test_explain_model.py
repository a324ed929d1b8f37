"""How whole models behave, through a server: tables, texts, arrays, and who may ask."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from tests.conftest import deploy_echo
from tests.processes import ServerProcess, cli, serving
from tests.stores import deploy
from tests.training.service import digits

from openmaas.client import ApiError, Client

PATH = "/v1/explain/model"
NAMES = ("weight", "noise", "colour")


def table() -> list[dict[str, Any]]:
    """The label is by weight, mostly; colour and noise say nothing, and some of it is missing."""
    drawn = np.random.default_rng(3)
    rows = []
    for at in range(240):
        weight = float(drawn.normal())
        sure = drawn.random() < 0.95
        rows.append(
            {
                "weight": weight,
                "noise": None if at % 20 == 0 else float(drawn.normal()),
                "colour": ("red", "blue")[at % 2],
                "label": ("light", "heavy")[(weight > 0) == sure],
                "price": 3 * weight + 1,
            }
        )
    return rows


def texts() -> list[dict[str, Any]]:
    topics = {"sport": "goal match team striker", "food": "soup bread oven salt"}
    return [
        {"text": f"{word} {other} number {at}", "topic": topic}
        for topic, words in topics.items()
        for at in range(12)
        for word in words.split()
        for other in words.split()[:1]
    ]


class House(NamedTuple):
    server: ServerProcess
    client: Client
    table: str  # data sets
    texts: str

    def ask(self, **body: Any) -> httpx.Response:
        return self.server.client.post(PATH, json=body)


@pytest.fixture(scope="module")
def house(digits_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    data = tmp_path_factory.mktemp("explain-model") / "data"
    shutil.copytree(digits_only, data)
    deploy(data, "digits")
    deploy_echo(data)
    deploy_echo(data, "vectors", task="embed")
    deploy_echo(data, "shapeless", task="predict")
    with serving(data) as server, Client(server.url, server.key, timeout=120) as client:
        known = client.datasets.upload(table(), name="things", target="label")
        words = client.datasets.upload(
            texts(), name="sentences", target="topic", kinds={"text": "text"}
        )
        fit = {"epochs": 12}
        common: dict[str, Any] = {"promote": True, "fit": fit}
        client.training.train(
            "sorter", known, recipe="tabular_mlp", inputs=list(NAMES), target="label", **common
        )
        prices = client.datasets.upload(table(), name="prices")
        client.training.train(
            "pricer", prices, recipe="tabular_mlp", inputs=["weight", "noise"], target="price",
            **common,
        )  # fmt: skip
        client.training.train("topics", words, recipe="text_embeddings", target="topic", **common)
        client.datasets.delete(prices.id)
        yield House(server, client, known.id, words.id)


# --- what is said ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["integrated_gradients", "saliency", "shapley", "occlusion"])
def test_columns_of_a_row(house: House, method: str) -> None:
    """What one answer is due to, as of the whole model below."""
    row = {"weight": 2.0, "noise": None, "colour": "red"}
    made = house.client.explain(row, "sorter", method=method)
    (one,) = made["attributions"]
    shares = {each["name"]: each["attribution"] for each in one["featureAttributions"]}
    assert {each["name"]: each["value"] for each in one["featureAttributions"]} == row
    assert one["outputDisplayName"] == "heavy"
    assert max(shares, key=lambda name: abs(shares[name])) == "weight"
    assert shares["noise"] == pytest.approx(0, abs=1e-6)  # it is missing, as in the baseline
    if method in ("shapley", "integrated_gradients"):
        difference = one["instanceOutputValue"] - one["baselineOutputValue"]
        assert sum(shares.values()) == pytest.approx(difference, abs=2e-3)
    text = house.client.explain("goal and soup", "topics", method=method)
    best = max(text["attributions"][0]["featureAttributions"], key=lambda each: each["attribution"])
    assert best["text"] in ("goal", "soup")


def test_a_table_and_what_its_card_says(house: House) -> None:
    found = house.client.explain_model("sorter", repeats=3)
    assert found["object"] == "explanation.model"
    assert found["dataset"]["id"] == house.table
    assert found["dataset"]["target"] == "label"
    assert found["rows"] == found["dataset"]["rows"] == 48
    assert found["left_out"] == []
    columns = {one["column"]: one["mean"] for one in found["importance"]["columns"]}
    assert found["importance"]["columns"][0]["column"] == "weight"
    assert set(columns) == set(NAMES)
    assert columns["weight"] > 0.2
    assert abs(columns["colour"]) < 0.1
    assert found["metrics"]["accuracy"] == found["confusion"]["accuracy"] > 0.8
    assert sum(map(sum, found["confusion"]["matrix"])) == 48
    assert found["confusion"]["mistaken"] == len(found["confusion"]["mistakes"])
    assert sum(one["count"] for one in found["calibration"]["bins"]) == 48
    assert found["calibration"]["accuracy"] == found["metrics"]["accuracy"]
    assert found["cost"]["forward_passes"] == 48 * (1 + 3 * 3)
    close = found["neighbours"]
    assert close["by"] == "standardised columns"
    for one in close["found"]:
        assert one["predicted"] != one["true"]
        assert len(one["examples"]) == 5
    again = house.client.explain_model("sorter@1", dataset="things", repeats=3)
    for part in ("importance", "calibration", "confusion", "neighbours", "metrics"):
        assert again[part] == found[part]


def test_neighbours_of_a_row_that_is_given(house: House) -> None:
    row = {name: table()[0][name] for name in NAMES}
    found = house.ask(model="sorter", parts=["neighbours"], split="train", input=row, k=3).json()
    (one,) = found["neighbours"]["found"]
    assert found["cost"]["forward_passes"] == 1
    assert len(one["examples"]) == 3
    assert one["examples"][0]["similarity"] <= 1 + 1e-9
    assert "noise=missing" in one["shown"]
    wrong = house.ask(model="sorter", parts=["neighbours"], input={"weight": 1})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "input"


def test_numbers_have_importance_alone(house: House) -> None:
    found = house.client.explain_model("pricer", dataset=house.table)
    assert found["importance"]["metric"] == "rmse"
    assert [one["column"] for one in found["importance"]["columns"]] == ["weight", "noise"]
    assert found["importance"]["columns"][0]["mean"] > 1
    assert {one["part"] for one in found["left_out"]} == {
        "calibration", "confusion", "neighbours",
    }  # fmt: skip
    given = house.client.explain_model(
        "pricer", dataset="things", target="price", parts=["neighbours"],
        input={"weight": 0.0, "noise": 0.0},
    )  # fmt: skip
    (one,) = given["neighbours"]["found"]
    assert one["confidence"] is None
    assert float(one["predicted"]) == pytest.approx(1, abs=1.5)


def test_texts_and_their_nearest_by_the_deployed_embeddings(house: House) -> None:
    known = texts()[0]["text"]
    found = house.client.explain_model("topics", split="train", input=known)
    assert [one["part"] for one in found["left_out"]] == ["importance"]
    assert any("trained on these rows" in note for note in found["notes"])
    assert found["metrics"]["accuracy"] > 0.9
    assert found["neighbours"]["by"] == "vectors@1"
    (one,) = found["neighbours"]["found"]
    trained = [near for near in one["examples"] if near["shown"] == known]
    if trained:  # unless it went to another split
        assert one["examples"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    train = found["neighbours"]["training_rows"]
    assert found["cost"]["forward_passes"] == found["rows"] + 1 + train + 1


def test_a_networks_array_and_a_data_set_by_name(house: House) -> None:
    known = digits()
    house.client.datasets.upload_arrays("pixels", x=known["x"][:300], y=known["y"][:300])
    found = house.client.explain_model("digits", dataset="pixels", target="y", repeats=1, rows=40)
    assert found["rows"] == 40
    assert found["metrics"]["accuracy"] > 0.8
    names = {one["column"] for one in found["importance"]["columns"]}
    assert len(names) == 64
    edge = next(one for one in found["importance"]["columns"] if one["column"].endswith("[0]"))
    assert edge["mean"] == edge["deviation"] == 0  # a pixel that is always 0
    assert len(found["confusion"]["labels"]) == 10


# --- how it is asked for ---------------------------------------------------------------------


def test_a_dry_run_says_the_cost_and_asks_nothing(house: House) -> None:
    before = house.server.client.get("/v1/usage?by=task").json()["data"]
    found = house.client.explain_model("sorter", dry_run=True, repeats=7)
    assert found["cost"] == {
        "forward_passes": 48 * (1 + 3 * 7), "backward_passes": 0, "seconds": None,
    }  # fmt: skip
    assert found["parts"] == ["importance", "calibration", "confusion", "neighbours"]
    assert found["importance"] is None
    assert house.server.client.get("/v1/usage?by=task").json()["data"] == before


def test_progress_and_then_the_report(house: House) -> None:
    told: list[tuple[int, int]] = []
    found = house.client.explain_model(
        "sorter", parts=["importance"], progress=lambda done, total: told.append((done, total))
    )
    total = 48 * (1 + 3 * 5)
    assert told[-1] == (total, total)
    assert told == sorted(told)
    assert found["importance"]["columns"][0]["column"] == "weight"
    assert found["calibration"] is None


def test_it_is_metered_in_the_batch_lane(house: House) -> None:
    answer = house.ask(model="sorter", parts=["calibration"])
    id = answer.headers["x-request-id"]
    rows = house.server.client.get("/v1/tenants/default/usage/rows?limit=1000").json()["data"]
    (row,) = [one for one in rows if one["request"] == id]
    assert (row["task"], row["priority"], row["rows"]) == ("explain", "batch", 48)
    assert answer.headers["x-openmaas-model"] == "sorter@1"


def test_a_page_and_a_picture(house: House) -> None:
    page = house.client.explain_model.page("sorter", repeats=1)
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "weight" in page
    answer = house.ask(model="sorter", repeats=1, render="html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    picture = house.client.explain_model.picture("sorter", repeats=1, dark=True)
    assert picture.startswith(b"\x89PNG")


def test_what_the_command_shows(house: House, tmp_path: Path) -> None:
    env = {"OPENMAAS_URL": house.server.url, "OPENMAAS_API_KEY": house.server.key}
    shown = cli(tmp_path, "explain-model", "sorter", "--repeats", "1", **env)
    for words in ("Importance", "Reliability", "Confusion", "weight", "accuracy"):
        assert words in shown
    cost = cli(tmp_path, "explain-model", "sorter", "--dry-run", "--part", "confusion", **env)
    assert "48 forward passes" in cost
    file = tmp_path / "report.json"
    cli(tmp_path, "explain-model", "sorter", "--part", "confusion", "-o", str(file), **env)
    assert json.loads(file.read_text())["confusion"]["labels"] == ["heavy", "light"]


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "nothing"}, 404, "model"),
        ({"model": "echo"}, 400, "model"),
        ({"model": "shapeless"}, 400, "model"),
        ({"model": "digits"}, 400, "dataset"),  # nobody says what it was trained on
        ({"dataset": "ds_00"}, 404, "dataset"),
        ({"dataset": "sentences"}, 400, None),  # other columns
        ({"target": "nothing"}, 400, None),
        ({"target": "colour"}, 400, "dataset"),  # no label that the model knows
        ({"parts": []}, 400, "parts"),
        ({"parts": ["confusion", "confusion"]}, 400, "parts"),
        ({"parts": ["shap"]}, 400, "parts[0]"),
        ({"rows": 0}, 400, "rows"),
        ({"rows": 10_001}, 400, "rows"),
        ({"repeats": 51}, 400, "repeats"),
        ({"bins": 12}, 400, "bins"),
        ({"k": 0}, 400, "k"),
        ({"split": "all"}, 400, "split"),
        ({"stream": True, "render": "png"}, 400, "stream"),
        ({"dry_run": True, "render": "html"}, 400, "render"),
        ({"dark": True}, 400, "dark"),
        ({"parts": ["confusion"], "input": {}}, 400, "input"),
        ({"input": "a text"}, 400, "input"),
        ({"nonsense": 1}, 400, "nonsense"),
    ],
)
def test_what_is_refused(
    house: House, change: dict[str, Any], status: int, param: str | None
) -> None:
    answer = house.ask(**({"model": "sorter"} | change))
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    if param is not None:
        assert answer.json()["error"]["param"] == param


def test_too_much_is_refused_before_anything_is_asked(house: House) -> None:
    known = digits()
    made = house.client.datasets.upload_arrays("many", x=np.tile(known["x"], (3, 1)),
                                               y=np.tile(known["y"], 3))  # fmt: skip
    answer = house.ask(
        model="digits", dataset=made.id, target="y", split="train", rows=5000, repeats=50
    )
    assert answer.status_code == 400
    assert "over the limit" in answer.json()["error"]["message"]


def test_a_data_set_that_is_gone(house: House) -> None:
    with pytest.raises(ApiError, match="'prices', which this model was trained on, is gone") as met:
        house.client.explain_model("pricer")
    assert met.value.status == 404


def test_another_tenants_are_as_if_absent(house: House) -> None:
    house.server.client.post("/v1/tenants", json={"id": "other"})

    def key(*scopes: str) -> httpx.Client:
        body = {"name": "x", "scopes": list(scopes)}
        made = house.server.client.post("/v1/tenants/other/keys", json=body).json()
        bearer = {"Authorization": f"Bearer {made['secret']}"}
        return httpx.Client(base_url=house.server.url, headers=bearer, timeout=60)

    with key("inference", "train") as both, key("train") as train, key("inference") as asks:
        foreign = both.post(PATH, json={"model": "sorter"})
        absent = both.post(PATH, json={"model": "nothing"})
        assert foreign.status_code == absent.status_code == 404
        assert foreign.text.replace("sorter", "nothing") == absent.text
        for given in (house.table, "things"):  # public models, others' data sets
            foreign = both.post(PATH, json={"model": "digits", "dataset": given})
            absent = both.post(PATH, json={"model": "digits", "dataset": "ds_00"})
            assert foreign.status_code == absent.status_code == 404
            assert foreign.text.replace(given, "ds_00") == absent.text
        body = {"model": "digits", "dataset": "ds_00"}
        assert train.post(PATH, json=body).status_code == 403
        assert asks.post(PATH, json=body).status_code == 403
