"""`megapt train` and `compare` as users type them, and how they refuse what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from megapt.distributed.ranks import Ranks
from tests.cli.answers import Answer, Megapt, command, trained_by
from tests.ranks import run_ranks


def test_train_says_where_the_run_is_and_what_it_reached(config_file: Path) -> None:
    run = config_file.with_name("run")
    answer = trained_by("train", config_file)
    assert answer.code == 0
    [line] = answer.output.splitlines()
    assert line.startswith(f"{run}: ")
    assert "validation loss" in line
    again = trained_by("train", config_file)
    assert again == Answer(0, f"{run}: already finished; nothing to do\n", "")


def test_a_model_without_segments_is_trained_and_used(megapt: Megapt, config_file: Path) -> None:
    run = config_file.with_name("run")
    assert trained_by("train", config_file, "model.num_segments=0").code == 0
    weights = next((run / "checkpoints").glob("*/model.safetensors"))
    with safe_open(weights, "pt") as file:
        assert "trunk.embeddings.words.weight" in file.keys()  # noqa: SIM118  # no mapping
        assert not [name for name in file.keys() if "segments" in name]  # noqa: SIM118
    answer = megapt("generate", run, "--prompt", "The old ship", "--max-tokens", "3")
    assert answer.code == 0
    refused = trained_by("train", config_file)
    assert refused.code == 2
    assert "holds a run with model.num_segments = 0, not 2" in refused.errors


def test_compare_ends_with_the_table_and_where_the_report_is(compare_file: Path) -> None:
    answer = trained_by("compare", compare_file)
    assert answer.code == 0
    *_, report, results = answer.output.splitlines()
    out = compare_file.with_name("out")
    assert report == f"report: {out / 'report.html'}"
    assert results == f"results: {out / 'results.json'}"
    assert "arlm: validation loss" in answer.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sed=3"], ["command line: sed: ", "'seed'"]),
        (["model.hiden_size=3"], ["model.hiden_size: ", "'hidden_size'"]),
        (["model.hidden_size=wide"], ["model.hidden_size: ", "integer", "'wide'"]),
        (["model.hidden_size=15"], ["hidden_size 15", "num_heads 2"]),
        (["seed"], ["'seed' should have the form key=value"]),
        (["objective=mlmm"], ["objective: ", "'mlm'"]),
        (["objective.name=mlmm"], ["objective.name: ", "'mlm'"]),
        (["objective=[mlm]"], ["objective"]),
        (["objective=mlm", "objective.mask_rate=3"], ["objective.mask_rate: ", "less than 1"]),
        (["objective=mlm", "objective.mask_rat=0.3"], ["objective.mask_rat: ", "'mask_rate'"]),
        (["model=modrn"], ["model: ", "'modern'"]),
        (["data.window=8"], ["data.window: ", "16"]),
        (["data.window=16", "objective=nsp"], ["'nsp'", "16 tokens", "data.window"]),
        (
            ["objective=nsp", "model.num_segments=0"],
            ["line: model.num_segments: 0 is too", "'nsp'", "2"],
        ),
        (["model.num_segments=-1"], ["model.num_segments: ", "-1"]),
        (["data.corpus=nowhere"], ["nowhere/manifest.json: ", "megapt-prep build"]),
        (["training.global_batch_size=7"], ["training.global_batch_size: 7", "micro_batch_size 2"]),
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
        (["measures=[{name: probe, train_document: 3}]"], "'train_documents'"),
        (["measures=[prob]"], "command line: measures.0.name: no measure named 'prob'"),
        (["measures=probe"], "measures: "),
        (["measures.0.train_documents=3"], "'measures' holds no keys"),
        (["probe.train_documents=3"], "probe: this key is called 'measures' now"),
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
