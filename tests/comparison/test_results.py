"""results.json: what is refused, what survives a round trip."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from megapt.comparison.results import dump, load
from megapt.errors import ConfigError, DamagedError

MEMBER: dict[str, Any] = {
    "name": "mlm",
    "objective": "mlm",
    "settings": {"mask_rate": 0.15},
    "attention": "bidirectional",
    "uses_labels": False,
    "validation_loss": 4.5,
    "unigram_loss": 6,
    "heads": [
        {
            "head": "tokens",
            "kind": "token",
            "weight": 1,
            "loss": 4.5,
            "unigram_loss": 6,
            "accuracy": 0.3,
            "unigram_accuracy": 0.05,
            "targets": 1000,
        }
    ],
    "scores": {"probe": {"value": 0.6, "interval": [0.58, 0.62], "items": [1, 0, 1, None, 1]}},
    "unanswered": {"repetition": "'mlm' does not generate text"},
    "tokens_per_second": 50_000.5,
    "budget": {
        "raw_tokens": 1000,
        "positions": 1024,
        "targets": 150,
        "model_flops": 1e9,
        "wall_clock": 1.5,
    },
    "steps": 10,
    "parameters": 12345,
    "samples": [{"kind": "filling", "prompt": "很[MASK]", "text": "很好", "repetition": None}],
    "curve": [
        {
            "step": 5,
            "raw_tokens": 500,
            "positions": 512,
            "targets": 75,
            "model_flops": 5e8,
            "wall_clock": 0.7,
            "loss": 5.5,
        },
    ],
    "ranks": 2,
    "run": "members/mlm",
}
RESULTS: dict[str, Any] = {
    "format": "megapt-comparison/3",
    "megapt_version": "0.1.0",
    "title": "t",
    "corpus": {
        "fingerprint": "abc",
        "train_documents": 10,
        "train_tokens": 100,
        "valid_documents": 2,
        "valid_tokens": 20,
        "labels": ["neg", "pos"],
    },
    "budget_axis": "raw_tokens",
    "budget_amount": 1000,
    "model": {"num_layers": 2},
    "seed": 0,
    "ranks": 2,
    "device": "cpu",
    "window": 256,
    "window_policy": "fill",
    "measures": [
        {
            "name": "probe",
            "title": "Probe accuracy",
            "about": "the share that is right",
            "unit": "share",
            "better": "higher",
            "settings": {"train_documents": 10},
            "items": 5,
            "material": "10 training and 5 validation documents",
            "baselines": {"majority class": 0.5},
            "untrained": {"value": 0.55, "interval": [0.5, 0.6], "items": []},
        }
    ],
    "skipped_measures": {},
    "held_equal": ["text"],
    "not_equal": ["targets"],
    "members": [MEMBER],
}


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "results.json"
    file.write_text(json.dumps({**RESULTS, **changes}), encoding="utf-8")
    return file


def test_file_survives_a_round_trip(tmp_path: Path) -> None:
    results = load(write(tmp_path))
    assert results.members[0].loss_ratio == 0.75
    assert results.members[0].samples[0].text == "很好"
    again = tmp_path / "again.json"
    again.write_text(dump(results), encoding="utf-8")
    assert load(again) == results


def test_lists_of_numbers_stand_on_one_line(tmp_path: Path) -> None:
    prompt = "[\n1,\n2\n]"
    samples = [{**MEMBER["samples"][0], "prompt": prompt}]
    results = load(write(tmp_path, members=[{**MEMBER, "samples": samples}]))
    text = dump(results)
    assert '"items": [1.0, 0.0, 1.0, null, 1.0]\n' in text
    assert json.loads(text) == json.loads(results.model_dump_json())


def test_a_diverged_loss_survives_in_standard_json(tmp_path: Path) -> None:
    results = load(write(tmp_path))
    member = results.members[0].model_copy(update={"validation_loss": math.nan})
    text = results.model_copy(update={"members": [member]}).model_dump_json()
    assert json.loads(text)["members"][0]["validation_loss"] == "NaN"
    (tmp_path / "nan.json").write_text(text, encoding="utf-8")
    assert math.isnan(load(tmp_path / "nan.json").members[0].validation_loss)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"format": "megapt-comparison/1"}, "format"),
        ({"budget_axis": "tokens"}, "budget_axis"),
        ({"extra": 1}, "extra"),
        ({"members": [{**MEMBER, "scores": {"probe": {}}}]}, "members.0.scores.probe.value"),
        ({"measures": [{**RESULTS["measures"][0], "better": "more"}]}, "measures.0.better"),
        ({"members": [{**MEMBER, "unigram_loss": 0}]}, "members.0.unigram_loss"),
        ({"members": [{**MEMBER, "steps": "10"}]}, "members.0.steps"),
    ],
)
def test_wrong_values_are_refused_by_place(
    tmp_path: Path, changes: dict[str, Any], place: str
) -> None:
    kind = ConfigError if place == "format" else DamagedError
    with pytest.raises(kind, match=f"results.json: {place}: "):
        load(write(tmp_path, **changes))


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such results file"):
        load(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(DamagedError, match="file: Invalid JSON"):
        load(tmp_path / "results.json")
