"""An objective of the user's own: its examples are checked, and its file stays with the run."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.data import Corpus, CounterRng, Example, Targets, Window
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError, MegaptError
from megapt.objectives import OBJECTIVES, Objective, ObjectiveError
from megapt.training.example_checks import check_example
from megapt.training.prepared import prepare
from megapt.training.trainer import Trainer
from tests.objectives.builders import build
from tests.ranks import run_ranks
from tests.training.runs import ALONE, run_config, train, train_to_refusal, train_with_signal, tree
from tests.windows import VOCABULARY, make_piece

SOURCE = """
from dataclasses import replace
import numpy as np
import torch
from megapt.objectives.arlm import Arlm

class Own(Arlm):
    name = "own"
    version = 1

    def examples(self, window, rng):
        return [self.spoilt(example) for example in super().examples(window, rng)]

    def spoilt(self, e):
        t = e.targets["tokens"]
        return {example}
"""


def write(file: Path, example: str = "e", version: int = 1) -> dict[str, Any]:
    """Write an objective whose examples are `example` of those of arlm; return its section."""
    text = SOURCE.replace("{example}", example).replace("version = 1", f"version = {version}")
    file.write_text(text, encoding="utf-8")
    return {"name": "own", "file": str(file)}


def refusal(config: RunConfig) -> str:
    """The line that refuses `config` before anything is written."""
    with pytest.raises(ConfigError) as raised:
        prepare(config, ALONE, Origins({"objective": "run.yaml:3"}))
    message = str(raised.value)
    assert "\n" not in message
    return message


HEAD = "of the targets of head 'tokens'"


@pytest.mark.parametrize(
    ("example", "says"),
    [
        (
            "replace(e, targets={'tokens': replace(t, positions=t.positions + len(e))})",
            rf"positions {HEAD} hold \d+; they should be from 0 to \d+",
        ),
        (
            "replace(e, targets={'tokens': replace(t, labels=-np.ones_like(t.labels, 'i8'))})",
            rf"labels {HEAD} hold -1; they should be from 0 to SIZE",
        ),
        (
            "replace(e, targets={'tokens': replace(t, labels=t.labels + 60_000)})",
            rf"labels {HEAD} hold \d+; they should be from 0 to SIZE",
        ),
        (
            "replace(e, positions=e.positions + self.context.window + 3)",
            r"position ids hold 51; they should be from 0 to 50",
        ),
        (
            "replace(e, tokens=e.tokens.astype('int64') + self.vocabulary.size)",
            r"tokens hold \d+; they should be from 0 to SIZE",
        ),
        (
            "replace(e, tokens=-e.tokens.astype('int64'))",
            r"tokens hold -\d+; they should be from 0 to SIZE",
        ),
        (
            "replace(e, targets={'token': t})",
            r"it has targets of a head 'token'; did you mean 'tokens'\?",
        ),
    ],
)
def test_a_wrong_example_is_refused_before_anything_is_written(
    corpus_folder: Path, tmp_path: Path, example: str, says: str
) -> None:
    section = write(tmp_path / "own.py", example)
    says = says.replace("SIZE", str(Corpus(corpus_folder).vocabulary.size - 1))
    told = rf"'own' makes a wrong example, number 0 of window \d+ of the train split: {says}"
    message = refusal(run_config(corpus_folder, tmp_path / "run", objective=section))
    assert re.fullmatch(rf"run.yaml:3: objective: {told}", message), message
    mixture = {"name": "mixture", "members": {"right": {"name": "arlm"}, "wrong": section}}
    message = refusal(run_config(corpus_folder, tmp_path / "run", objective=mixture))
    assert re.fullmatch(rf"run.yaml:3: objective.members.wrong: {told}", message), message
    assert not (tmp_path / "run").exists()


def test_a_wrong_example_that_one_rank_meets_is_refused_on_all(
    corpus_folder: Path, tmp_path: Path
) -> None:
    wrong = "replace(e, positions=e.positions + 99) if torch.distributed.get_rank() else e"
    section = write(tmp_path / "own.py", wrong)
    config = run_config(corpus_folder, tmp_path / "run", objective=section)
    first, second = run_ranks(2, train_to_refusal, config)
    assert "position ids hold 99" in first
    assert second == first
    assert not (tmp_path / "run").exists()


PIECE = make_piece([40, 41, 42, 43])


def asked(**changes: Any) -> Callable[[Example], Example]:
    """Change the targets of the head `tokens`."""
    return lambda e: replace(e, targets={"tokens": replace(e.targets["tokens"], **changes)})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda e: replace(e, tokens=e.tokens[:0]), "0 positions"),
        (lambda e: replace(e, tokens=np.tile(e.tokens, 99)), "`longest_example` allows 1 to 11"),
        (lambda e: replace(e, tokens=e.tokens * 1.0), "tokens are float64"),
        (lambda e: replace(e, positions=e.positions[1:]), "position ids have the shape"),
        (
            lambda e: replace(e, segments=e.segments + 1),
            "segments hold 1; they should be from 0 to 0, as its `segments = 0` says",
        ),
        (lambda e: replace(e, visible=e.segments), "`visible` should be"),
        (asked(labels=np.array([40])), "labels of the targets of head 'tokens' have the shape"),
        (asked(positions=np.array([[0]])), "positions of the targets of head 'tokens' have"),
        (asked(weights=np.ones(1)), "weights of the targets of head 'tokens' have the shape (1,)"),
        (asked(draws=np.ones(1)), "draws of the targets of head 'tokens' have the shape (1,)"),
    ],
)
def test_what_an_example_promises_is_checked(
    spoil: Callable[[Example], Example], says: str
) -> None:
    objective = build("arlm", window=8)
    [example] = objective.examples(Window(0, 0, (PIECE,)), CounterRng("right"))
    check_example(example, objective)
    with pytest.raises(ObjectiveError, match=re.escape(says)):
        check_example(spoil(example), objective)


def test_segments_are_those_that_the_objective_tells_apart() -> None:
    objective = build("mgm", window=8)
    [example] = objective.examples(Window(0, 0, (PIECE,)), CounterRng("right"))
    check_example(example, objective)
    with pytest.raises(ObjectiveError, match="segments hold 2; they should be from 0 to 1, as"):
        check_example(replace(example, segments=example.segments + 1), objective)


def test_a_generator_without_draws_is_refused() -> None:
    objective = build("electra", window=8)
    [example] = objective.examples(Window(0, 0, (PIECE,)), CounterRng("right"))
    check_example(example, objective)
    of = example.targets["generator"]
    without = {**example.targets, "generator": Targets(of.positions, of.labels)}
    with pytest.raises(ObjectiveError, match="draws of the targets of head 'generator' are miss"):
        check_example(replace(example, targets=without), objective)
    beyond = {**example.targets, "detection": Targets(of.positions, of.labels)}
    with pytest.raises(
        ObjectiveError, match=r"head 'detection' hold 4\d; they should be from 0 to 1"
    ):
        check_example(replace(example, targets=beyond), objective)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_examples_of_every_objective_are_well_formed(name: str) -> None:
    objective: Objective = build(name, window=60)
    sentences = [0, 5, 11, 20]
    for key in range(5):
        pieces = [
            make_piece(
                [33 + (7 * key + 3 * d + i) % (VOCABULARY.size - 33) for i in range(n)],
                sentences=sentences[: max(1, n // 6)],
                document=d,
                label=d % 2,
            )
            for d, n in enumerate((1, 2, 30, 27))
        ]
        examples = objective.examples(Window(0, 0, tuple(pieces), step=0), CounterRng(key))
        assert examples
        for example in examples:
            check_example(example, objective)


def created(config: RunConfig, corpus_folder: Path) -> RunFolder:
    """The folder of a run that has only begun."""
    corpus, folder = Corpus(corpus_folder), RunFolder(config.output)
    folder.check(config, corpus.fingerprint)
    folder.create(config, corpus, 1)
    return folder


def checked(config: RunConfig, corpus_folder: Path) -> str:
    """The kind and the text of what refuses to resume the run, empty if it may go on."""
    try:
        RunFolder(config.output).check(config, Corpus(corpus_folder).fingerprint)
    except MegaptError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def in_mixture(section: dict[str, Any]) -> dict[str, Any]:
    return {"name": "mixture", "members": {"arlm": {"name": "arlm"}, "mine": section}}


@pytest.mark.parametrize(
    ("placed", "path"),
    [(dict, "objective"), (in_mixture, "objective.members.mine")],
    ids=["alone", "in a mixture"],
)
def test_a_run_keeps_the_file_and_is_resumed_with_that_alone(
    corpus_folder: Path, tmp_path: Path, placed: Callable[..., dict[str, Any]], path: str
) -> None:
    file, moved = tmp_path / "own.py", tmp_path / "moved.py"
    config = run_config(corpus_folder, tmp_path / "run", objective=placed(write(file)))
    folder = created(config, corpus_folder)
    copy = tmp_path / "run" / f"{path}.py"
    assert copy.read_bytes() == file.read_bytes()
    assert not checked(config, corpus_folder)
    shutil.copyfile(file, moved)
    write(file, version=2)
    before = tree(tmp_path / "run")
    assert checked(config, corpus_folder) == (
        f"ConfigError: {tmp_path}/run: holds a run whose {path}.file was as in {copy}, and {file} "
        f"differs; "
        f"choose another folder for 'output', or remove this one"
    )
    section = placed({"name": "own", "file": str(moved)})
    elsewhere = run_config(corpus_folder, tmp_path / "run", objective=section)
    assert not checked(elsewhere, corpus_folder)
    # What opens the run reads the copy, whatever has become of the file.
    for _ in range(2):
        objective = folder.objective(folder.load_config())
        [*_, (_, own)] = objective.leaves("objective")
        assert own.version == 1  # type: ignore[attr-defined]
        file.unlink(missing_ok=True)
    assert tree(tmp_path / "run") == before
    copy.unlink()
    assert checked(elsewhere, corpus_folder) == f"DamagedError: {copy}: missing from the run"


def test_a_built_in_objective_does_not_become_one_of_a_file(
    corpus_folder: Path, tmp_path: Path
) -> None:
    created(run_config(corpus_folder, tmp_path / "run"), corpus_folder)
    section = {**write(tmp_path / "own.py"), "name": "arlm"}
    config = run_config(corpus_folder, tmp_path / "run", objective=section)
    assert "holds a run with objective.file = None" in checked(config, corpus_folder)


def test_a_file_that_is_not_there_is_refused_with_its_place(
    corpus_folder: Path, tmp_path: Path
) -> None:
    section = {"name": "own", "file": str(tmp_path / "none.py")}
    message = refusal(run_config(corpus_folder, tmp_path / "run", objective=section))
    assert message == f"run.yaml:3: objective.file: {tmp_path}/none.py: no such Python file"


def test_a_run_killed_at_its_very_beginning_may_begin_again(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = run_config(corpus_folder, tmp_path / "run", objective=write(tmp_path / "own.py"))
    created(config, corpus_folder).config_file.unlink()
    (tmp_path / "run" / "objective.py").rename(tmp_path / "run" / "objective.py.partial")
    assert not checked(config, corpus_folder)
    write(tmp_path / "own.py", version=2)
    created(config, corpus_folder)
    assert "version = 2" in (tmp_path / "run" / "objective.py").read_text()
    assert not checked(config, corpus_folder)


def train_while_the_file_changes(ranks: Ranks, config: RunConfig) -> None:
    trainer = Trainer(prepare(config, ranks, Origins()))
    write(Path(str(config.objective.file)), version=2)
    trainer.train()


def test_the_run_keeps_the_file_that_it_was_trained_with(
    corpus_folder: Path, tmp_path: Path
) -> None:
    """Between the start and the first step, other members of a comparison may train for hours."""
    config = run_config(corpus_folder, tmp_path / "run", objective=write(tmp_path / "own.py"))
    run_ranks(1, train_while_the_file_changes, config)
    assert "version = 1" in (tmp_path / "run" / "objective.py").read_text()


def test_an_interrupted_run_goes_on_with_its_file_alone(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = run_config(corpus_folder, tmp_path / "run", objective=write(tmp_path / "own.py"))
    assert run_ranks(1, train_with_signal, config, signal.SIGTERM, 2) == [None]
    write(tmp_path / "own.py", version=2)
    [message] = run_ranks(1, train_to_refusal, config)
    assert f"{tmp_path}/own.py differs" in message
    write(tmp_path / "own.py")
    [summary] = run_ranks(1, train, config)
    assert summary["steps"] > 2


def test_members_of_a_mixture_keep_their_order(corpus_folder: Path, tmp_path: Path) -> None:
    """The members share out the draws of the windows in this order."""

    def config(*names: str, **weights: float) -> RunConfig:
        section = {
            "name": "mixture",
            "members": {name: {"name": name} for name in names},
            "weights": weights,
        }
        return run_config(corpus_folder, tmp_path / "run", objective=section)

    created(config("arlm", "mlm", arlm=2.0, mlm=1.0), corpus_folder)
    assert not checked(config("arlm", "mlm", mlm=1.0, arlm=2.0), corpus_folder)
    assert checked(config("mlm", "arlm", arlm=2.0, mlm=1.0), corpus_folder) == (
        f"ConfigError: {tmp_path}/run: holds a run with order of objective.members = arlm, mlm, "
        f"not mlm, arlm; "
        f"choose another folder for 'output', or remove this one"
    )
    assert "objective.members" in checked(config("arlm", arlm=2.0), corpus_folder)
