"""What is asked of a trained run: its scores, texts, fillings and classes."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megapt.data import Corpus
from megapt.errors import Exit
from tests.cli.answers import CHINESE, LONG, TRAINED, Megapt
from tests.ranks import end_ranks, run_ranks
from tests.training.runs import run_config, train_with_signal


def test_eval_scores_the_run_beside_its_baseline(megapt: Megapt, runs: Path) -> None:
    for name in TRAINED:
        scores = megapt("eval", runs / name, "--windows", 4, "--json").json
        assert scores["model"].keys() == scores["unigram"].keys()
        assert scores["model"]["loss"] > 0
    heads = {"loss/tokens", "accuracy/tokens", "loss/nsp", "accuracy/nsp"}
    assert scores["model"].keys() == {"loss", *heads}
    table = megapt("eval", runs / "bert", "--windows", 4).output.splitlines()
    assert [line.split()[0] for line in table] == list(scores["model"])
    assert f"{scores['model']['loss']:.4f}" in table[0]


def test_eval_finds_a_corpus_that_moved_and_refuses_another(
    megapt: Megapt, runs: Path, corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(corpus.where, tmp_path / "moved")
    here = megapt("eval", runs / "arlm", "--windows", 2, "--json")
    words = ("eval", runs / "arlm", "--windows", 2, "--json", "--corpus", tmp_path / "moved")
    assert megapt(*words).json == here.json
    manifest = tmp_path / "moved" / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace(corpus.manifest.fingerprint, "0" * 64), encoding="utf-8")
    assert str(tmp_path / "moved") in megapt(*words).line(Exit.DAMAGED)
    assert str(tmp_path / "none") in megapt(*words[:-1], tmp_path / "none").refusal


@pytest.mark.parametrize("name", ["arlm", "mgm"])
def test_generate_writes_a_text_for_each_prompt(megapt: Megapt, runs: Path, name: str) -> None:
    prompts = ("The old ship", CHINESE, "under the [MASK]", "", "   ")
    options = [word for prompt in prompts for word in ("--prompt", prompt)]
    words = ("generate", runs / name, *options, "--max-tokens", 6, "--json")
    first = megapt(*words)
    assert first.code == 0
    assert len(first.json) == len(prompts)
    assert all(isinstance(text, str) for text in first.json)
    assert megapt(*words).json == first.json
    assert megapt(*words, "--seed", 1).json != first.json


def test_generate_prints_the_text_alone(megapt: Megapt, runs: Path) -> None:
    words = ("generate", runs / "arlm", "--prompt", CHINESE, "--max-tokens", 6)
    [text] = megapt(*words, "--json").json
    assert megapt(*words).output == f"{text}\n"


def test_a_greedy_text_depends_on_no_seed(megapt: Megapt, runs: Path) -> None:
    words = ("generate", runs / "arlm", "--prompt", "A", "--max-tokens", 6, "--temperature", 0)
    assert megapt(*words, "--seed", 1) == megapt(*words, "--seed", 2)


@pytest.mark.parametrize(
    ("text", "masks"),
    [
        ("The [MASK] sails", 1),
        ("[MASK] old [MASK]", 2),
        ("[MASK]", 1),
        ("[MASK] [MASK][MASK]", 3),
        ("渔船[MASK]港口。", 1),
        ("a tab\there [MASK]", 1),
    ],
)
@pytest.mark.parametrize("name", ["mlm", "msc", "bert"])
def test_fill_mask_answers_every_mask(
    megapt: Megapt, runs: Path, name: str, text: str, masks: int
) -> None:
    filling = megapt("fill-mask", runs / name, text, "--top", 3, "--json").json
    assert [len(best) for best in filling["candidates"]] == [3] * masks
    for best in filling["candidates"]:
        shares = [share for _, share in best]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1
    assert "[MASK]" not in filling["text"]
    for part in text.split("[MASK]"):
        assert part.strip() in filling["text"]


def test_fill_mask_shows_candidates_and_the_text(megapt: Megapt, runs: Path) -> None:
    first, second, text = megapt("fill-mask", runs / "mlm", "[MASK] old [MASK]").output.splitlines()
    assert first.startswith("[MASK] 1: ")
    assert second.startswith("[MASK] 2: ")
    assert "old" in text


def test_more_candidates_than_pieces_are_all_ordinary_pieces(
    megapt: Megapt, runs: Path, corpus: Corpus
) -> None:
    words = ("fill-mask", runs / "mlm", "The [MASK]", "--top", 100_000, "--json")
    [candidates] = megapt(*words).json["candidates"]
    assert len(candidates) == len(corpus.vocabulary.ordinary)
    assert sum(share for _, share in candidates) == pytest.approx(1, abs=1e-4)


def test_classify_gives_every_class_its_share(megapt: Megapt, runs: Path) -> None:
    texts = ("The old ship", CHINESE, "", "  ", LONG)
    results = megapt("classify", runs / "msc", *texts, "--json").json
    assert len(results) == len(texts)
    for result in results:
        assert set(result) == {"sea", "field"}
        assert sum(result.values()) == pytest.approx(1, abs=1e-5)
        assert list(result.values()) == sorted(result.values(), reverse=True)
    lines = megapt("classify", runs / "msc", *texts).output.splitlines()
    assert [line.split()[0] for line in lines] == [next(iter(result)) for result in results]


CAN = {
    "generate": {"arlm", "mgm"},
    "fill-mask": {"mlm", "msc", "bert"},
    "classify": {"msc"},
}
WORDS = {
    "generate": ("--prompt", "The", "--max-tokens", "1"),
    "fill-mask": ("The [MASK]",),
    "classify": ("The",),
}


@pytest.mark.parametrize("objective", TRAINED)
@pytest.mark.parametrize("name", CAN)
def test_a_command_says_which_objectives_can_do_it(
    megapt: Megapt, runs: Path, name: str, objective: str
) -> None:
    answer = megapt(name, runs / objective, *WORDS[name])
    if objective in CAN[name]:
        assert answer.code == 0
    else:
        assert answer.refusal.startswith(f"{runs / objective}: was trained with '{objective}'")
        assert all(able in answer.refusal for able in CAN[name])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fill-mask", "mlm", "no mask"), "[MASK]"),
        (("fill-mask", "mlm", ""), "[MASK]"),
        (("fill-mask", "mlm", LONG + "[MASK]"), "64 at most"),
        (("generate", "arlm", "--prompt", LONG), "64 at most"),
        (("generate", "mgm", "--prompt", LONG), "64 at most"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(
    megapt: Megapt, runs: Path, words: tuple[str, ...], said: str
) -> None:
    name, run, *rest = words
    assert said in megapt(name, runs / run, *rest).refusal


USES = {"eval": (), **WORDS}


@pytest.mark.parametrize("name", USES)
def test_a_folder_that_is_no_run_is_refused(megapt: Megapt, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "none", tmp_path / "file"):
        assert megapt(name, place, *USES[name]).refusal.startswith(f"{place}: no run here")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: (run / "config.yaml").write_text("seed: ["),
        lambda run: (run / "config.yaml").write_text("- a"),
        lambda run: (run / "corpus.json").write_text("{}"),
        lambda run: (run / "corpus.json").unlink(),
        lambda run: (run / "tokenizer.model").write_bytes(b"zzz"),
        lambda run: (run / "tokenizer.model").unlink(),
        lambda run: next(run.glob("checkpoints/*/model.safetensors")).write_bytes(b"zzz"),
        lambda run: next(run.glob("checkpoints/*/model.safetensors")).unlink(),
    ],
    ids=[
        "broken config",
        "no mapping in the config",
        "empty corpus record",
        "no corpus record",
        "broken tokenizer",
        "no tokenizer",
        "broken weights",
        "no weights",
    ],
)
def test_a_damaged_run_is_refused_by_the_name_of_the_file(
    megapt: Megapt, runs: Path, tmp_path: Path, spoil: Callable[[Path], Any]
) -> None:
    shutil.copytree(runs / "arlm", tmp_path / "run")
    spoil(tmp_path / "run")
    assert str(tmp_path / "run") in megapt("eval", tmp_path / "run").line(Exit.DAMAGED)


def test_an_unfinished_run_is_used_as_far_as_it_is_saved(
    megapt: Megapt, corpus_folder: Path, tmp_path: Path
) -> None:
    stopped = run_config(corpus_folder, tmp_path / "stopped", data={"window": 64})
    run_ranks(1, train_with_signal, stopped, signal.SIGINT, 2)
    assert megapt("eval", stopped.output, "--windows", 2, "--json").json["model"]["loss"] > 0
    killed = run_config(corpus_folder, tmp_path / "killed", data={"window": 64})
    end_ranks(1, train_with_signal, killed, signal.SIGKILL, 2)
    for name, words in USES.items():
        assert megapt(name, killed.output, *words).refusal == (
            f"{killed.output}: has no checkpoint yet"
        )
