"""Keys of earlier versions: refused by their new names, and migrated in stored runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import (
    CompareConfig,
    DeviceConfig,
    ObjectiveSection,
    OptimizerConfig,
    Origins,
    PartSection,
    RunConfig,
    load_config,
    validate,
)
from megapt.config.migration import RENAMED, migrated, original
from megapt.errors import ConfigError
from megapt.evaluation.measures import MEASURES
from megapt.objectives import Context, build_objective
from megapt.optim import OPTIMIZERS
from megapt.registry import part_settings
from tests.training.runs import run_config
from tests.windows import VOCABULARY

ROOT = Path(__file__).resolve().parents[2]
MOVED = {old for old, new in RENAMED.items() if old.rpartition(".")[0] != new.rpartition(".")[0]}
COMPARISON = {"heldout_windows", "probe", "sample_tokens", "samples"}


def test_the_table_of_the_changelog_is_that_of_the_code() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = text.split("### Renamed keys\n", 1)[1].split("\n### ", 1)[0]
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", section, re.MULTILINE)
    assert rows == list(RENAMED.items())


def _use(old: str, file: Path) -> None:
    """Use an old key where a user would."""
    section, _, key = old.rpartition(".")
    kind, _, name = section.partition(".")
    origins = Origins(default="x.yaml")
    if kind == "objective":
        settings = ObjectiveSection.model_validate({"name": name, key: 1})
        build_objective(settings, Context(VOCABULARY, 64), origins)
    elif kind == "measures":
        settings = PartSection.model_validate({"name": name, key: 1})
        part_settings(settings, MEASURES[name].Config, origins, "measures.0")
    elif kind == "optimizer":
        optimizer = OptimizerConfig.model_validate({key: 1})
        part_settings(optimizer, OPTIMIZERS[optimizer.name].Config, origins, "optimizer")
    elif kind == "device":
        validate(DeviceConfig, {key: 1}, origins, "device")
    elif old == "schedule.batch_size_rampup.global_batch":
        load_config(RunConfig, file, [f"{section}=[{{until: 0.5, {key}: 1}}]"])
    elif old in COMPARISON:
        load_config(CompareConfig, ROOT / "configs/compare/demo.yaml", [f"{old}=1"])
    else:
        load_config(RunConfig, file, [f"{old}=1"])


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_is_refused_with_its_new_name(old: str) -> None:
    new = RENAMED[old] if old in MOVED else RENAMED[old].rpartition(".")[2]
    with pytest.raises(
        ConfigError, match=rf"\b{old.rpartition('.')[2]}: this key is called '{new}' now"
    ):
        _use(old, ROOT / "configs/run/demo.yaml")


@pytest.mark.parametrize("old", sorted(RENAMED.keys() - MOVED - COMPARISON))
def test_a_stored_run_is_read_with_the_new_key(old: str) -> None:
    *sections, key = old.split(".")
    if sections[0] in ("measures", "device") or old == "monitor.prometheus":
        return  # no part of a run's configuration; tested below
    value: Any = {key: 7}
    if sections[0] == "objective":
        value = {"objective": {"name": "mixture", "members": {"a": {"name": sections[1], **value}}}}
        found = migrated(value)["objective"]["members"]["a"]
    elif sections[-1] == "batch_size_rampup":
        found = migrated({"schedule": {"batches": [value]}})["schedule"]["batch_size_rampup"][0]
    else:
        for section in reversed(sections):
            value = {section: value}
        found = migrated(value)
        for section in sections:
            found = found[section]
    assert found.pop(RENAMED[old].rpartition(".")[2]) == 7
    assert key not in found


def test_a_digest_of_the_first_keys_survives_a_renaming() -> None:
    old = {
        "model": {"layers": 2, "dropout": 0.1},
        "schedule": {"batches": [{"until": 0.1, "global_batch": 4}]},
        "data": {"policy": "fill", "reading": {"cache": None}},
        "objective": {
            "name": "mixture",
            "members": {
                "reading": {"name": "nsp", "reading": "cls"},
                "inner": {"name": "mixture", "members": {"a": {"name": "msc", "balance": True}}},
                "mine": {"name": "mine", "file": "x.py", "pooling": 1},
            },
        },
    }
    assert original(migrated(old)) == old
    assert migrated(migrated(old)) == migrated(old)


def test_settings_of_a_custom_objective_keep_their_names() -> None:
    objective = {"name": "mlm", "file": "/x/mlm.py", "ngram_longest": 3}
    assert migrated({"objective": objective}) == {"objective": objective}


@pytest.mark.parametrize(
    ("path", "trackers"),
    [
        (None, ["jsonl", "tensorboard"]),
        ("x.prom", ["jsonl", "tensorboard", {"name": "prometheus", "path": "x.prom"}]),
    ],
)
def test_the_file_of_prometheus_is_a_setting_of_its_tracker(
    tmp_path: Path, path: str | None, trackers: list[Any]
) -> None:
    values = run_config(tmp_path, tmp_path).model_dump()
    values["monitor"] = {"norms_by_group": True, "prometheus": path}
    before = yaml.safe_dump(values)
    (tmp_path / "config.yaml").write_text(before, encoding="utf-8")
    monitor = RunFolder(tmp_path).load_config().monitor
    assert monitor.norms_by_group
    assert [tracker.name for tracker in monitor.trackers] == [
        tracker if isinstance(tracker, str) else tracker["name"] for tracker in trackers
    ]
    assert migrated(values)["monitor"] == {"norms_by_group": True, "trackers": trackers}
    assert yaml.safe_dump(values) == before


def test_what_is_of_this_version_stays(tmp_path: Path) -> None:
    values = run_config(tmp_path, tmp_path).model_dump()
    assert migrated(values) == values


@pytest.mark.parametrize("named", ["clm", "{name: clm}"])
def test_clm_is_another_name_of_arlm(named: str) -> None:
    file = ROOT / "configs/run/demo.yaml"
    config, _ = load_config(RunConfig, file, [f"objective={named}"])
    assert config.objective.name == "arlm"
    mixture = f"{{name: mixture, members: {{clm: {named}, mlm: mlm}}}}"
    config, _ = load_config(RunConfig, file, [f"objective={mixture}"])
    objective = build_objective(config.objective, Context(VOCABULARY, 64, steps=9), Origins())
    assert [part.name for _, part in objective.leaves("objective")] == ["arlm", "mlm"]
