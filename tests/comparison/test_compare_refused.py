"""Comparisons that are refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megapt.comparison.compare import Comparison
from megapt.config import CompareConfig, Origins
from megapt.data import Corpus
from tests.comparison.comparing import compare, compare_config, refusal
from tests.corpora import build_texts
from tests.ranks import run_ranks
from tests.training.runs import ALONE


@pytest.fixture
def build_of(corpus_folder: Path, tmp_path: Path) -> Callable[[list[str], float], Path]:
    """Build a corpus of these texts, `share` of them held out."""

    def build(texts: list[str], share: float) -> Path:
        source = tmp_path / "texts.txt"
        source.write_text("\n".join(texts), encoding="utf-8")
        return build_texts(
            source, corpus_folder, tmp_path / "texts", split_text="line", valid_fraction=share
        )

    return build


def test_classification_without_classes_is_refused_though_it_comes_last(
    unlabeled: Path, tmp_path: Path
) -> None:
    config = compare_config(unlabeled, tmp_path / "out", "arlm", "mlm", "msc")
    message = refusal(config, Origins({"members.msc": "compare.yaml:9"}))
    assert message.startswith("compare.yaml:9: members.msc: ")
    assert "--label-field" in message


def test_a_member_that_tells_more_segments_apart_than_the_model_is_refused(
    corpus_folder: Path, tmp_path: Path
) -> None:
    usual = compare_config(corpus_folder, tmp_path / "out", "arlm", "mgm")
    model = {**usual.model.model_dump(), "num_segments": 1}
    config = CompareConfig.model_validate({**usual.model_dump(), "model": model})
    message = refusal(config, Origins({"model.num_segments": "compare.yaml:4"}))
    assert message == (
        "compare.yaml:4: model.num_segments: 1 is too few: 'mgm' distinguishes 2 segments; "
        "set it to 2"
    )


def test_a_misspelt_member_names_the_nearest_objective(corpus_folder: Path, tmp_path: Path) -> None:
    message = refusal(compare_config(corpus_folder, tmp_path / "out", "arlm", "mlmm"))
    assert "members.mlmm.name" in message
    assert "'mlm'" in message


def test_a_file_in_the_place_of_the_folder_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder")
    assert str(tmp_path / "out") in refusal(compare_config(corpus_folder, tmp_path / "out", "arlm"))


def test_a_mixture_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    config = compare_config(corpus_folder, tmp_path / "out", "arlm")
    mixture = {"corpora": {"one": {"path": str(corpus_folder)}}}
    data = {**config.data.model_dump(), "corpus": None, "mixture": mixture}
    message = refusal(CompareConfig.model_validate({**config.model_dump(), "data": data}))
    assert message == "data.mixture: a comparison reads one corpus; name data.corpus"


@pytest.mark.parametrize("name", ["", "../escaped", "a/b", "."])
def test_a_member_stays_inside_the_folder(corpus_folder: Path, tmp_path: Path, name: str) -> None:
    """Its name is the name of its run folder, and a word of error messages and overrides."""
    members = {name: {"name": "arlm"}}
    with pytest.raises(ValueError, match="members"):
        compare_config(corpus_folder, tmp_path / "out", members=members)


def test_held_out_windows_in_which_a_member_finds_nothing_are_refused_at_the_start(
    build_of: Callable[[list[str], float], Path], tmp_path: Path
) -> None:
    """A loss of 0.0 over no target would look like a perfect model."""
    paired = [f"The old ship sails {i}. A captain sleeps {i}. Rain." for i in range(60)]
    corpus = build_of(paired, 0.02)
    assert len(Corpus(corpus).validation) == 1, "one document has no partner in a pair"
    message = refusal(compare_config(corpus, tmp_path / "out", "arlm", "nsp"))
    assert "members.nsp" in message
    assert "1 valid windows" in message


def test_only_the_held_out_windows_that_will_be_read_count(
    corpus_folder: Path, tmp_path: Path
) -> None:
    """Later windows may hold pairs, but the final evaluation asks for the first alone."""

    def config(window: int, validation_windows: int) -> CompareConfig:
        training = {"validation_windows": 1000}
        usual = compare_config(corpus_folder, tmp_path / "out", "nsp", training=training)
        data = {**usual.data.model_dump(), "window": window}
        changes = {"data": data, "validation_windows": validation_windows}
        return CompareConfig.model_validate({**usual.model_dump(), **changes})

    def first_is_empty(window: int) -> bool:
        validation = Comparison(config(window, 1000), ALONE, Origins()).prepared["nsp"].validation
        [first] = validation.stream.windows([0])
        return not validation.examples(first)

    window = next(window for window in range(32, 80, 4) if first_is_empty(window))
    assert "1 valid windows" in refusal(config(window, 1))


def test_windows_shorter_than_a_sample_are_no_obstacle(corpus_folder: Path, tmp_path: Path) -> None:
    config = compare_config(corpus_folder, tmp_path / "out", "arlm", "mlm", "mgm")
    short = {**config.model_dump(), "data": {**config.data.model_dump(), "window": 32}}
    [found] = run_ranks(1, compare, CompareConfig.model_validate(short))
    assert [len(member.samples) for member in found.members] == [2, 2, 2]
