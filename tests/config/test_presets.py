"""Every file of configs/ is loaded here. A new folder says in FOLDERS what its files describe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from megapt.config import CompareConfig, Origins, RunConfig, load_config
from megapt.objectives import Context, build_objective
from tests.objectives.builders import LABELS
from tests.windows import VOCABULARY

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SECTIONS = {"data", "loss", "model", "objective", "optimizer", "schedule", "training"}
WHOLE = {"run": RunConfig, "compare": CompareConfig}
LOADED_ELSEWHERE = {"cluster", "prep"}  # by the tests of launchers and of data_prep

SENTINELS = list(range(VOCABULARY.size, VOCABULARY.size + 100))
"""As many as a tokenizer has by default: windows of the shipped files need more than a few."""
USUAL = VOCABULARY.model_copy(
    update={
        "size": VOCABULARY.size + 100,
        "sentinels": SENTINELS,
        "reserved": [*VOCABULARY.reserved, *SENTINELS],
    }
)

SKELETON = """\
output: runs/x
data: {corpus: c}
model: modern
objective: arlm
training: {budget: {amount: 1}}
"""


def files_of(folders: set[str]) -> list[object]:
    found = [
        file for folder in sorted(folders) for file in sorted((CONFIGS / folder).rglob("*.y*ml"))
    ]
    return [pytest.param(file, id=str(file.relative_to(CONFIGS))) for file in found]


def test_every_folder_of_configs_is_loaded_by_a_test() -> None:
    folders = {file.relative_to(CONFIGS).parts[0] for file in CONFIGS.rglob("*") if file.is_file()}
    assert folders <= SECTIONS | set(WHOLE) | LOADED_ELSEWHERE


@pytest.mark.parametrize("file", files_of(SECTIONS))
def test_a_preset_of_a_section_is_right(file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(SKELETON, encoding="utf-8")
    section = file.relative_to(CONFIGS).parts[0]
    config, _ = load_config(RunConfig, run, [f"{section}={file}"])
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    if section != "objective" and "base" not in written:
        assert getattr(config, section).model_dump(exclude_unset=True) == written


@pytest.mark.parametrize("file", files_of(set(WHOLE)))
def test_a_run_or_a_comparison_is_right_down_to_its_objectives(file: Path) -> None:
    config, origins = load_config(WHOLE[file.relative_to(CONFIGS).parts[0]], file)
    members = getattr(config, "members", None)
    if members is None:
        members = {"objective": config.objective}  # type: ignore[union-attr]
    for name, section in members.items():
        context = Context(USUAL, config.data.window, LABELS)
        build_objective(section, context, origins, path=name)
    training = config.training
    assert training.global_batch_size % training.micro_batch_size == 0


@pytest.mark.parametrize("file", files_of({"objective"}))
def test_a_preset_of_an_objective_can_be_built(file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(SKELETON, encoding="utf-8")
    config, _ = load_config(RunConfig, run, [f"objective={file}"])
    context = Context(USUAL, config.data.window, LABELS)
    objective = build_objective(config.objective, context, Origins())
    assert objective.heads
