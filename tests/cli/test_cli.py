"""`megapt` as users type it: what each command prints, and how it refuses what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from megapt.cli import main
from megapt.config import RunConfig
from megapt.data import Corpus
from megapt.distributed.ranks import Ranks
from megapt.errors import Exit
from megapt.objectives import registry
from megapt.training import launch
from megapt.training.trainer import Trainer
from tests.ranks import end_ranks, run_ranks
from tests.training.runs import ALONE, run_config, train, train_with_signal

OBJECTIVES = ("arlm", "mlm", "msc", "mgm", "nsp", "bert")
ROOT = Path(__file__).resolve().parents[1]
CHINESE = "渔船在港口看见灯塔。"
LONG = "The old ship and every sail. " * 20


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it printed."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """Its whole standard output as JSON."""
        return json.loads(self.output)

    @property
    def refusal(self) -> str:
        """The one line that refuses wrong input."""
        return self.line(Exit.WRONG_INPUT)

    def line(self, code: Exit) -> str:
        """The one line of an error that ends with this code."""
        assert self.code == code, self
        assert self.output == ""
        [line] = self.errors.splitlines()
        assert line.startswith("megapt: error: ")
        return line.removeprefix("megapt: error: ")


Megapt = Callable[..., Answer]


def call_main(words: tuple[object, ...]) -> int:
    with patch.object(sys, "argv", ["megapt", *map(str, words)]), pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def megapt(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Megapt:
    """Run a command in this process, as the only rank and without a process group."""
    monkeypatch.setattr(launch, "start_ranks", lambda: ALONE)
    # Training belongs to a rank: see `trained_by`.
    monkeypatch.setattr(Trainer, "train", lambda _: pytest.fail("began to train"))

    def run(*words: object) -> Answer:
        capfd.readouterr()
        code = call_main(words)
        output, errors = capfd.readouterr()
        assert "Traceback" not in errors
        return Answer(code, output, errors)

    return run


def command(ranks: Ranks, words: tuple[object, ...]) -> Answer:
    """Run a command that trains, on a rank of its own; the harness ends the process group."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        patch.object(launch, "leave", sys.exit),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        code = call_main(words)
    return Answer(code, output.getvalue(), errors.getvalue())


def trained_by(*words: object) -> Answer:
    [answer] = run_ranks(1, command, words)
    return answer


def train_all(ranks: Ranks, configs: list[RunConfig]) -> None:
    for config in configs:
        train(ranks, config)


@pytest.fixture(scope="module")
def runs(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run of every objective, named after it."""
    folder = tmp_path_factory.mktemp("runs")
    configs = [
        run_config(
            corpus_folder,
            folder / name,
            data={"window": 64},
            objective={"name": name},
            training={"budget": {"amount": 1000.0}, "validate_every": 0},
        )
        for name in OBJECTIVES
    ]
    run_ranks(1, train_all, configs)
    return folder


@pytest.fixture
def config_file(corpus_folder: Path, tmp_path: Path) -> Path:
    """A run of `arlm` that has not begun; its folder is `run` beside this file."""
    config = run_config(corpus_folder, tmp_path / "run", data={"window": 64})
    return write_yaml(tmp_path / "run.yaml", config.model_dump())


@pytest.fixture
def compare_file(corpus_folder: Path, tmp_path: Path) -> Path:
    """A comparison of two objectives that has not begun; its folder is `out` beside this file."""
    run = run_config(
        corpus_folder, tmp_path / "out", data={"window": 64}, training={"budget": {"amount": 800.0}}
    )
    values = {
        **run.model_dump(exclude={"objective", "branch"}),
        "members": {"arlm": "arlm", "mlm": "mlm"},
        "probe": {"train_documents": 40, "heldout_documents": 20},
        "heldout_windows": 8,
        "samples": 1,
        "sample_tokens": 4,
    }
    return write_yaml(tmp_path / "compare.yaml", values)


def write_yaml(file: Path, values: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


# ---------------------------------------------------------------- the command line itself


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian run.yaml", "train"),
        ("train", "CONFIG"),
        ("train --objective mlm run.yaml", "--objective"),
        ("eval", "RUN"),
        ("eval run --windows 0", "--windows"),
        ("eval run --windows many", "--windows"),
        ("show run.yaml --window -1", "--window"),
        ("show run.yaml --html", "--html"),
        ("generate run", "--prompt"),
        ("generate run --prompt a --top-p 2", "--top-p"),
        ("generate run --prompt a --temperature -1", "--temperature"),
        ("generate run --prompt a --temperature inf", "--temperature"),
        ("fill-mask run", "TEXT"),
        ("fill-mask run [MASK] --top 0", "--top"),
        ("classify run", "TEXTS"),
    ],
)
def test_wrong_usage_ends_with_code_2(megapt: Megapt, words: str, said: str) -> None:
    answer = megapt(*words.split())
    assert answer.code == 2
    assert answer.output == ""
    assert said.lower() in answer.errors.lower()


def test_help_needs_no_torch() -> None:
    code = "import sys; import megapt.cli; assert 'torch' not in sys.modules; megapt.cli.main()"
    helped = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert helped.returncode == 0, helped.stderr
    for name in ("train", "compare", "show", "eval", "generate", "fill-mask", "classify"):
        assert name in helped.stdout


def test_a_program_reads_nothing_but_json_on_standard_output(runs: Path) -> None:
    """In a process of its own, where libraries greet the user as they like."""
    code = "from megapt.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", code, "eval", str(runs / "mlm"), "--windows", "2", "--json"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert set(json.loads(answer.stdout)) == {"model", "unigram"}


# ---------------------------------------------------------------- train and compare


def test_train_says_where_the_run_is_and_what_it_reached(config_file: Path) -> None:
    run = config_file.with_name("run")
    answer = trained_by("train", config_file)
    assert answer.code == 0
    [line] = answer.output.splitlines()
    assert line.startswith(f"{run}: ")
    assert "held-out loss" in line
    again = trained_by("train", config_file)
    assert again == Answer(0, f"{run}: finished already; nothing to do\n", "")


def test_compare_ends_with_the_table_and_where_the_report_is(compare_file: Path) -> None:
    answer = trained_by("compare", compare_file)
    assert answer.code == 0
    *_, report, results = answer.output.splitlines()
    out = compare_file.with_name("out")
    assert report == f"report: {out / 'report.html'}"
    assert results == f"results: {out / 'results.json'}"
    assert "arlm: held-out loss" in answer.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sed=3"], ["command line: sed: ", "'seed'"]),
        (["model.hiden=3"], ["model.hiden: ", "'hidden'"]),
        (["model.hidden=wide"], ["model.hidden: ", "integer", "'wide'"]),
        (["model.hidden=15"], ["hidden 15", "heads 2"]),
        (["seed"], ["'seed' should read key=value"]),
        (["objective=mlmm"], ["objective: ", "'mlm'"]),
        (["objective.name=mlmm"], ["objective.name: ", "'mlm'"]),
        (["objective=[mlm]"], ["objective"]),
        (["objective=mlm", "objective.mask_rate=3"], ["objective.mask_rate: ", "less than 1"]),
        (["objective=mlm", "objective.mask_rat=0.3"], ["objective.mask_rat: ", "'mask_rate'"]),
        (["model=modrn"], ["model: ", "'modern'"]),
        (["data.window=8"], ["data.window: ", "16"]),
        (["data.window=16", "objective=nsp"], ["'nsp'", "16 tokens", "data.window"]),
        (["data.corpus=nowhere"], ["nowhere/manifest.json: ", "megapt-prep build"]),
        (["training.global_batch=7"], ["training.global_batch: 7", "micro_batch 2"]),
        (["training.budget.amount=.inf"], ["training.budget.amount: ", "finite"]),
        (["training.budget=4"], ["training.budget: "]),
        (["optimizer.lr=${nope}"], ["nope"]),
        (["output=null"], ["output: "]),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(
    megapt: Megapt, config_file: Path, words: list[str], said: list[str]
) -> None:
    before = sorted(config_file.parent.rglob("*"))
    message = megapt("train", config_file, *words).refusal
    assert all(part in message for part in said), message
    assert sorted(config_file.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "run.yaml: no such config file"),
        (b"", "run.yaml: output: this key is required and missing"),
        (b"- a\n- b\n", "run.yaml: should hold 'key: value' lines"),
        (b"output: [1\nmodel: {", "run.yaml:2: not valid YAML"),
        (b"output: a\noutput: b\n", "run.yaml:2: not valid YAML"),
        (b"\xff\xfea", "run.yaml: not UTF-8"),
        (b"output: ${b\n", "run.yaml: not valid YAML"),
    ],
)
@pytest.mark.parametrize("name", ["train", "compare", "show"])
def test_a_broken_config_file_is_refused_at_its_line(
    megapt: Megapt, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    file = tmp_path / "run.yaml"
    if content is not None:
        file.write_bytes(content)
    assert said in megapt(name, file).refusal


@pytest.mark.parametrize("name", ["train", "compare", "show"])
def test_a_folder_is_no_config_file(megapt: Megapt, tmp_path: Path, name: str) -> None:
    assert megapt(name, tmp_path).refusal == f"{tmp_path}: is a folder; give a YAML file"


def test_the_kinds_of_config_file_are_told_apart(
    megapt: Megapt, config_file: Path, compare_file: Path
) -> None:
    assert "members: this key is required" in megapt("compare", config_file).refusal
    assert "objective: this key is required" in megapt("train", compare_file).refusal


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["members.mlm=mlmm"], "'mlm'"),
        (["members.mlm.name=mlmm"], "members.mlm.name"),
        (["members.nsp=nsp", "data.window=16"], "members.nsp"),
        (["probe.train_document=3"], "'train_documents'"),
    ],
)
def test_a_wrong_member_is_refused_before_another_is_trained(
    megapt: Megapt, compare_file: Path, words: list[str], said: str
) -> None:
    assert said in megapt("compare", compare_file, *words).refusal
    assert not compare_file.with_name("out").exists()


def test_members_named_anew_take_the_place_of_the_old_ones(
    megapt: Megapt, compare_file: Path
) -> None:
    """Nothing of a setting is dropped in silence: not even the whole of it."""
    assert "members" in megapt("compare", compare_file, "members={}").refusal
    nsp = ("members={nsp: nsp}", "data.window=16")
    message = megapt("compare", compare_file, *nsp).refusal
    assert "members.nsp" in message
    assert "finds no target" in message


def test_a_folder_that_cannot_be_written_is_told_in_one_line(config_file: Path) -> None:
    file = config_file.with_name("file")
    file.write_text("not a folder", encoding="utf-8")
    answer = trained_by("train", config_file, f"output={file / 'run'}")
    assert answer.code in (1, 2)
    [line] = answer.errors.splitlines()
    assert line.startswith("megapt: error: ")
    assert str(file) in line
    assert file.read_text(encoding="utf-8") == "not a folder"


def train_with_full_disk(ranks: Ranks, words: tuple[object, ...]) -> Answer:
    """Train where no file may grow beyond 20 kB."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    return command(ranks, words)


def test_a_full_disk_is_told_in_one_line_and_harms_nothing(config_file: Path) -> None:
    [answer] = run_ranks(1, train_with_full_disk, ("train", config_file))
    assert answer.code != 0
    assert answer.output == ""
    assert "Traceback" not in answer.errors
    assert answer.errors.splitlines()[-1].startswith("megapt: training failed: the checkpoint of ")
    assert trained_by("train", config_file).code == 0


# ---------------------------------------------------------------- use of a run


def test_eval_scores_the_run_beside_its_baseline(megapt: Megapt, runs: Path) -> None:
    for name in OBJECTIVES:
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


@pytest.mark.parametrize("objective", OBJECTIVES)
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


# ---------------------------------------------------------------- show


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_show_prints_the_same_window_under_every_objective(
    megapt: Megapt, config_file: Path, objective: str
) -> None:
    words = ("show", config_file, f"objective={objective}", "--window", 3)
    usual = megapt("show", config_file, "--window", 3, "--json").json
    shown = megapt(*words, "--json").json
    assert {key: shown[key] for key in ("window", "raw_tokens", "pieces")} == {
        key: usual[key] for key in ("window", "raw_tokens", "pieces")
    }
    heads = {target["head"] for example in shown["examples"] for target in example["targets"]}
    assert heads or objective in ("nsp", "bert")
    text = megapt(*words).output
    assert f"objective {objective}: {len(shown['examples'])} example" in text
    for piece in shown["pieces"]:
        assert piece["text"] in text
    assert not config_file.with_name("run").exists()


def test_show_names_the_windows_that_there_are(megapt: Megapt, config_file: Path) -> None:
    message = megapt("show", config_file, "--window", 10**6).refusal
    last = int(message.rsplit(" ", 1)[1])
    assert megapt("show", config_file, "--window", last).code == 0
    assert "windows are 0 to" in megapt("show", config_file, "--window", last + 1).refusal


def test_show_all_shows_every_objective_on_the_page_and_as_json(
    megapt: Megapt, config_file: Path
) -> None:
    file = config_file.with_name("window.html")
    answer = megapt("show", config_file, "--all", "--html", file)
    assert answer == Answer(0, f"page: {file}\n", "")
    page = file.read_text(encoding="utf-8")
    listed = megapt("show", config_file, "--all", "--json").json
    assert [shown["objective"] for shown in listed] == sorted(registry())
    assert all(f'<h2 id="{name}">' in page for name in registry())
    assert "objective=mlm" in megapt("show", config_file, "objective=mlm", "--all").refusal


@pytest.mark.parametrize(
    ("place", "said"), [("", "is a folder"), ("nowhere/page.html", "there is no folder")]
)
def test_show_refuses_a_page_without_a_place(
    megapt: Megapt, config_file: Path, place: str, said: str
) -> None:
    before = sorted(config_file.parent.rglob("*"))
    assert said in megapt("show", config_file, "--html", config_file.parent / place).refusal
    assert sorted(config_file.parent.rglob("*")) == before
