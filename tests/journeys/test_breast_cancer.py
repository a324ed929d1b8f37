"""A table of measurements, from rows to diagnoses over HTTP."""

from __future__ import annotations

from pathlib import Path

from sklearn.datasets import load_breast_cancer
from tests.journeys.house import client_of, parted


def test_a_table_of_thirty_numbers(tmp_path: Path) -> None:
    found = load_breast_cancer()
    names = [str(name) for name in found.feature_names]
    rows = [
        {name: float(value) for name, value in zip(names, line, strict=True)}
        | {"diagnosis": str(found.target_names[target])}
        for line, target in zip(found.data, found.target, strict=True)
    ]
    known, new = parted(len(rows))
    with client_of(tmp_path / "data") as (client, server):
        job = client.training.train(
            "diagnosis",
            client.datasets.upload([rows[at] for at in known], name="measurements"),
            recipe="tabular_mlp",
            target="diagnosis",
            promote={"metric": "accuracy", "at_least": 0.9},
        )
        assert job.card()["verification"]["max_abs_error"] <= 1e-4
        asked = [{name: rows[at][name] for name in names} for at in new]
        truth = [rows[at]["diagnosis"] for at in new]
        columns = {name: [[row[name]] for row in asked] for name in names}
        told = client.predict("diagnosis", columns)["label"].rows()
        assert sum(map(str.__eq__, told, truth)) / len(truth) >= 0.95
        answer = server.client.post("/v1/models/diagnosis:predict", json={"instances": asked})
        assert [one["label"] for one in answer.json()["predictions"]] == told
