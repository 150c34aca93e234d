"""A comparison from its configuration to results.json and report.html, killed, repeated, shared."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from megapt.comparison.compare import Comparison
from megapt.comparison.results import Results, load
from megapt.config import CompareConfig, Origins
from megapt.data import Corpus
from megapt.evaluation import load_run
from megapt.model import build_model
from tests.comparison.comparing import (
    ALL,
    compare,
    compare_config,
    compare_until_killed,
    probe,
    refusal,
    trained_files,
    without_clock,
)
from tests.ranks import end_ranks, run_ranks
from tests.training.runs import ALONE

AXES = ("raw_tokens", "positions", "targets", "model_flops", "wall_clock")
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def compared(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> CompareConfig:
    """The configuration of a finished comparison of five objectives on one rank."""
    config = compare_config(corpus_folder, tmp_path_factory.mktemp("five") / "out", *ALL)
    run_ranks(1, compare, config)
    return config


@pytest.fixture(scope="module")
def results(compared: CompareConfig) -> Results:
    return load(Path(compared.output) / "results.json")


def test_results_hold_what_programs_are_promised(compared: CompareConfig) -> None:
    written = json.loads((Path(compared.output) / "results.json").read_text(encoding="utf-8"))
    assert [member["objective"] for member in written["members"]] == list(ALL)
    for member in written["members"]:
        assert member["validation_loss"] > 0
        assert member["unigram_loss"] > 0
        probed = member["scores"]["probe"]
        assert probed["value"] == sum(probed["items"]) / 30
        assert len(probed["items"]) == 30
        low, high = probed["interval"]
        assert 0 <= low <= probed["value"] <= high <= 1
        assert member["tokens_per_second"] > 0
        assert tuple(member["budget"]) == AXES
        assert all(amount > 0 for amount in member["budget"].values())
    names = [measure["name"] for measure in written["measures"]]
    assert names == ["probe", "repetition"]
    for measure in written["measures"]:
        assert measure["better"] in ("higher", "lower")
        assert measure["unit"] == "share"
        assert measure["items"] > 0


def test_each_member_has_its_scores_or_the_reason_why_not(results: Results) -> None:
    reasons = {member.name: member.unanswered for member in results.members}
    assert reasons == {
        "arlm": {},
        "mlm": {"repetition": "'mlm' does not generate text"},
        "msc": {"repetition": "'msc' does not generate text"},
        "mgm": {},
        "nsp": {"repetition": "'nsp' does not generate text"},
    }
    for member in results.members:
        assert {*member.scores, *member.unanswered} == {"probe", "repetition"}


def test_repetition_is_that_of_the_samples(results: Results) -> None:
    """It writes from the same texts, as many and as long here, with the same draws."""
    for member in results.members:
        if "repetition" in member.scores:
            score = member.scores["repetition"]
            rates = [sample.repetition for sample in member.samples]
            assert score.items == rates
            counted = [rate for rate in rates if rate is not None]
            assert score.value == sum(counted) / len(counted)


def test_all_members_read_the_same_amount_of_text(results: Results) -> None:
    [read] = {member.budget.raw_tokens for member in results.members}
    [steps] = {member.steps for member in results.members}
    assert 2500 <= read < 2500 * (1 + 1 / (steps - 1))


def test_all_members_read_the_same_windows(corpus_folder: Path, tmp_path: Path) -> None:
    comparison = Comparison(compare_config(corpus_folder, tmp_path / "out", *ALL), ALONE, Origins())
    prepared = comparison.prepared.values()
    for makers in ([run.maker for run in prepared], [run.validation for run in prepared]):
        for number in (0, 3, 11, 200):
            [first], *others = [maker.stream.windows([number]) for maker in makers]
            for [other] in others:
                for mine, theirs in zip(first.pieces, other.pieces, strict=True):
                    assert mine.document == theirs.document
                    assert np.array_equal(mine.tokens, theirs.tokens)


def test_all_trunks_begin_with_the_same_weights(corpus_folder: Path, tmp_path: Path) -> None:
    comparison = Comparison(compare_config(corpus_folder, tmp_path / "out", *ALL), ALONE, Origins())
    size = comparison.corpus.vocabulary.size
    first, *others = [
        build_model(run.parts.config, run.parts.objective.heads, size).trunk.state_dict()
        for run in comparison.prepared.values()
    ]
    for other in others:
        assert other.keys() == first.keys()
        assert all(torch.equal(other[name], first[name]) for name in first)


def test_a_comparison_that_is_only_looked_at_writes_nothing(
    corpus_folder: Path, tmp_path: Path
) -> None:
    Comparison(compare_config(corpus_folder, tmp_path / "out", *ALL), ALONE, Origins())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axis", AXES[1:4])
def test_the_budget_holds_on_the_axis_that_was_declared(
    corpus_folder: Path, tmp_path: Path, axis: str
) -> None:
    amount = {"positions": 2500.0, "targets": 400.0, "model_flops": 1e8}[axis]
    training = {"budget": {"axis": axis, "amount": amount}}
    config = compare_config(
        corpus_folder,
        tmp_path / "out",
        "arlm",
        "nsp",
        training=training,
        num_samples=0,
        measures=[probe(8, 4)],
    )
    [found] = run_ranks(1, compare, config)
    for member in found.members:
        spent = getattr(member.budget, axis)
        assert spent >= amount
        assert spent * (1 - 2 / member.steps) < amount
    assert len({member.budget.raw_tokens for member in found.members}) == 2


def test_the_scores_are_those_of_the_runs_themselves(
    compared: CompareConfig, results: Results
) -> None:
    """As many windows are read in the last validation, so reloading changes nothing."""
    assert compared.validation_windows == compared.training.validation_windows
    for member in results.members:
        summary = json.loads((Path(compared.output) / member.run / "summary.json").read_text())
        assert member.validation_loss == pytest.approx(summary["validation"]["loss"], rel=1e-5)
        assert member.curve[-1].loss == pytest.approx(member.validation_loss, rel=1e-5)
        assert member.steps == summary["steps"]


def test_the_majority_is_counted_on_the_documents_of_the_probe(
    results: Results, corpus: Corpus
) -> None:
    measure = results.measures[0]
    assert measure.items == 30
    assert measure.material == "60 training and 30 validation documents"
    chosen = np.arange(30) * len(corpus.validation) // 30
    share = np.bincount(corpus.validation.labels[chosen]).max() / 30
    assert measure.baselines == {"majority class": share}


def test_the_untrained_trunk_is_the_one_that_training_begins_with(
    compared: CompareConfig, results: Results, corpus: Corpus
) -> None:
    comparison = Comparison(compared, ALONE, Origins())
    [measure] = [m for m in comparison._measures.chosen if m.name == "probe"]
    run = load_run(Path(compared.output) / "members" / "arlm")
    objective = comparison.prepared["arlm"].parts.objective
    model = build_model(comparison.runs["arlm"], objective.heads, corpus.vocabulary.size)
    expected = measure.score(replace(run, model=model.eval()))
    assert results.measures[0].untrained == expected
    assert expected != results.members[0].scores["probe"]
    assert results.measures[1].untrained is None


def test_each_objective_has_its_own_heads_and_kind_of_sample(results: Results) -> None:
    heads = {member.name: [head.head for head in member.heads] for member in results.members}
    assert heads == {
        "arlm": ["tokens"],
        "mlm": ["tokens"],
        "msc": ["tokens", "class"],
        "mgm": ["tokens"],
        "nsp": ["nsp"],
    }
    kinds = {member.name: [sample.kind for sample in member.samples] for member in results.members}
    assert kinds == {
        "arlm": ["continuation"] * 2,
        "mlm": ["filling"] * 2,
        "msc": ["filling"] * 2,
        "mgm": ["rewriting"] * 2,
        "nsp": [],
    }


def test_the_report_is_one_page_that_fetches_nothing(compared: CompareConfig) -> None:
    page = (Path(compared.output) / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ALL)
    assert page.count("<svg") + page.count("data:image") >= 3
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert not re.findall(r"@import|url\((?!['\"]?(?:data:|#))", page)


def test_a_finished_comparison_trains_nothing_again(compared: CompareConfig) -> None:
    output = Path(compared.output)
    files, results = trained_files(compared), (output / "results.json").read_bytes()
    report = (output / "report.html").read_bytes()
    (output / "report.html").unlink()
    run_ranks(1, compare, compared)
    assert trained_files(compared) == files
    assert (output / "results.json").read_bytes() == results
    assert (output / "report.html").read_bytes() == report


def test_a_further_member_is_trained_alone(
    compared: CompareConfig, results: Results, tmp_path: Path
) -> None:
    shutil.copytree(compared.output, tmp_path / "out")
    members = {**compared.members, "eager": {"name": "mlm", "mask_rate": 0.5}}
    values = {**compared.model_dump(), "output": str(tmp_path / "out"), "members": members}
    more = CompareConfig.model_validate(values)
    files = trained_files(more)
    [found] = run_ranks(1, compare, more)
    assert files.items() <= trained_files(more).items()
    assert found.members[:-1] == results.members
    assert found.members[-1].name == "eager"
    assert found.members[-1].settings["mask_rate"] == 0.5


def test_a_killed_comparison_goes_on_with_the_member_it_was_at(
    corpus_folder: Path, tmp_path: Path, results: Results
) -> None:
    config = compare_config(corpus_folder, tmp_path / "out", *ALL, checkpoint={"every": 1})
    [outcome], _ = end_ranks(1, compare_until_killed, config, "msc", 3)
    assert outcome.killed
    assert not (tmp_path / "out" / "results.json").exists()
    before = trained_files(config)
    [found] = run_ranks(1, compare, config)
    finished = {file for file in before if file.startswith(("members/arlm", "members/mlm"))}
    assert finished
    after = trained_files(config)
    assert {file: after[file] for file in finished} == {file: before[file] for file in finished}
    # The killed member did not start again: what it had written down stays written once.
    assert without_clock(found.model_dump()["members"]) == without_clock(
        results.model_dump()["members"]
    )


def test_two_ranks_give_the_results_of_one(
    corpus_folder: Path, tmp_path: Path, results: Results
) -> None:
    config = compare_config(corpus_folder, tmp_path / "out", *ALL)
    shared, other = run_ranks(2, compare, config)
    assert shared.ranks == 2
    for mine, theirs in zip(shared.members, results.members, strict=True):
        assert mine.validation_loss == pytest.approx(theirs.validation_loss, rel=ROUNDING)
        assert mine.unigram_loss == theirs.unigram_loss
        # Rounding may move a document that lies on the border of two classes.
        found, expected = mine.scores["probe"], theirs.scores["probe"]
        assert found.value == pytest.approx(expected.value, abs=1.5 / 30)
        assert mine.parameters == theirs.parameters
        assert without_clock(mine.budget.model_dump()) == without_clock(theirs.budget.model_dump())
    # Every rank knows the scores; the first alone writes samples.
    assert [m.validation_loss for m in other.members] == [m.validation_loss for m in shared.members]
    assert [m.scores for m in other.members] == [m.scores for m in shared.members]
    assert other.measures == shared.measures


def test_without_classes_there_is_no_probe_unless_it_is_named(
    unlabeled: Path, tmp_path: Path
) -> None:
    named = compare_config(unlabeled, tmp_path / "out", "arlm", "mlm", "nsp")
    values = named.model_dump(exclude={"measures"})
    run_ranks(1, compare, CompareConfig.model_validate(values))
    found = load(tmp_path / "out" / "results.json")
    assert [measure.name for measure in found.measures] == ["repetition"]
    assert "two classes" in found.skipped_measures["probe"]
    assert found.corpus.labels == []
    assert all("probe" not in member.scores for member in found.members)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "No measure has an interval" in page
    assert "probe: needs training documents of two classes" in page


def test_a_folder_of_another_comparison_is_refused(compared: CompareConfig) -> None:
    other = CompareConfig.model_validate({**compared.model_dump(), "seed": 4})
    assert "seed = 3, not 4" in refusal(other)
