"""The measures of a comparison: a user's own, those that are refused, those that fail a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megapt.comparison.results import load
from megapt.config import CompareConfig, Origins, load_config
from tests.comparison.comparing import compare, compare_config, probe, refusal
from tests.ranks import run_ranks

STEPS = """
from megapt.evaluation.measures import Measure, MeasureError, Score


class Steps(Measure):
    name = "steps"
    title = "Steps"
    about = "the updates behind the weights"
    unit = "updates"
    better = "lower"
    items = 1
    {more}

    def problem(self, objective):
        return "" if objective.name == "arlm" else "only arlm is asked"

    def score(self, run):
        if run.config.output.endswith("broken"):
            raise MeasureError("it is broken")
        return Score(value=run.step, interval=(run.step - 1, run.step + 1))
"""


def steps(folder: Path, more: str = "pass") -> dict[str, str]:
    """Write a measure of the user's own; return its section."""
    file = folder / "steps.py"
    file.write_text(STEPS.format(more=more), encoding="utf-8")
    return {"name": "steps", "file": str(file)}


def test_a_measure_of_ones_own_is_asked_and_kept(corpus_folder: Path, tmp_path: Path) -> None:
    members = {name: {"name": name} for name in ("mlm", "arlm")}
    members["broken"] = {"name": "arlm"}
    config = compare_config(
        corpus_folder,
        tmp_path / "out",
        members=members,
        measures=[probe(8, 4), steps(tmp_path)],
        num_samples=0,
    )
    run_ranks(1, compare, config)
    copy = tmp_path / "out" / "measures.steps.py"
    assert copy.read_bytes() == (tmp_path / "steps.py").read_bytes()
    found = load(tmp_path / "out" / "results.json")
    mlm, arlm, broken = found.members
    assert mlm.unanswered == {"steps": "only arlm is asked"}
    assert broken.unanswered == {"steps": "it is broken"}
    assert arlm.unanswered == {}
    assert arlm.scores["steps"].value == arlm.steps
    [_, measure] = found.measures
    assert (measure.unit, measure.better, measure.items) == ("updates", "lower", 1)
    assert measure.untrained is not None
    assert measure.untrained.value == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "steps of broken: it is broken" in page
    assert "Steps is lowest for arlm" in page

    # Nothing is trained again when a measure changes, so its copy changes with it.
    steps(tmp_path, "untrained = False")
    run_ranks(1, compare, config)
    assert copy.read_bytes() == (tmp_path / "steps.py").read_bytes()
    assert load(tmp_path / "out" / "results.json").measures[1].untrained is None


def test_no_measure_may_be_asked_for(corpus_folder: Path, tmp_path: Path) -> None:
    config = compare_config(corpus_folder, tmp_path / "out", "arlm", measures=[], num_samples=0)
    [found] = run_ranks(1, compare, config)
    assert found.measures == []
    assert found.skipped_measures == {}
    assert found.members[0].scores == {}


def test_a_named_measure_that_the_corpus_does_not_allow_is_refused(
    unlabeled: Path, tmp_path: Path
) -> None:
    config = compare_config(unlabeled, tmp_path / "out", "arlm")
    message = refusal(config, Origins({"measures.0": "compare.yaml:9"}))
    assert message.startswith("compare.yaml:9: measures.0: 'probe' needs training documents of two")
    assert "--label-field" in message


def test_a_wrong_measure_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    config = compare_config(corpus_folder, tmp_path / "out", "arlm", measures=[{"name": "prob"}])
    assert refusal(config) == "measures.0.name: no measure named 'prob'; did you mean 'probe'?"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("better = 'more'", "measures.0.better: should be 'higher' or 'lower', not 'more'"),
        ("baselines = {'chance': 'half'}", "measures.0.baselines.chance: should be a valid number"),
        ("items = 1.5", "measures.0.items: should be a valid integer, not 1.5"),
    ],
)
def test_what_a_measure_says_of_itself_is_checked_before_the_training(
    corpus_folder: Path, tmp_path: Path, more: str, says: str
) -> None:
    measures = [steps(tmp_path, more)]
    assert says in refusal(
        compare_config(corpus_folder, tmp_path / "out", "arlm", measures=measures)
    )


@pytest.mark.parametrize(
    ("measures", "says"),
    [
        (["probe", {"name": "probe"}], "names 'probe' twice"),
        (["a/b"], "a name may have only letters"),
        ("probe", "should be a valid list"),
    ],
)
def test_a_list_of_measures_is_of_names_that_differ(
    corpus_folder: Path, tmp_path: Path, measures: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        compare_config(corpus_folder, tmp_path / "out", "arlm", measures=measures)


YAML = """\
output: out
data: {corpus: c}
model: {num_layers: 1, hidden_size: 8, num_heads: 2, intermediate_size: 8}
training: {budget: {amount: 1.0}}
members: {arlm: arlm}
measures:
  - repetition
  - name: steps
    file: steps.py
"""


def test_a_file_stands_beside_the_yaml_and_lines_are_known(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/compare.yaml").write_text(YAML, encoding="utf-8")
    (tmp_path / "more.yaml").write_text("base: base/compare.yaml\nseed: 3\n", encoding="utf-8")
    config, origins = load_config(CompareConfig, tmp_path / "more.yaml")
    assert [measure.name for measure in config.measures] == ["repetition", "steps"]
    assert config.measures[1].file == str(tmp_path / "base/steps.py")
    assert origins.of("measures.1.file") == f"{tmp_path / 'base/compare.yaml'}:9"

    words = ["measures=[{name: probe, train_documents: 5}, repetition]"]
    config, origins = load_config(CompareConfig, tmp_path / "more.yaml", words)
    assert config.measures[0].model_extra == {"train_documents": 5}
    assert origins.of("measures.1") == "command line"


def test_what_is_not_named_is_the_usual(tmp_path: Path) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text(YAML.partition("measures:")[0], encoding="utf-8")
    config, _ = load_config(CompareConfig, file)
    assert [measure.name for measure in config.measures] == ["probe", "repetition"]
    assert "measures" not in config.model_fields_set
