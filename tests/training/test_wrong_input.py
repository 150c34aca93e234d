"""Wrong input: one line that names the place and the cure, and nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.manifest import Manifest
from megapt.config import Origins, RunConfig
from megapt.data import Corpus
from megapt.distributed.mesh import Mesh
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError, DamagedError, MegaptError
from megapt.training.prepared import prepare
from tests.corpora import write_corpus
from tests.ranks import run_ranks
from tests.training.runs import (
    ALONE,
    run_config,
    train_to_refusal,
    tree,
)


def refusal(
    config: RunConfig, origins: Origins | None = None, kind: type[MegaptError] = ConfigError
) -> str:
    """The line that refuses `config` before anything is written."""
    output = Path(config.output)
    before = tree(output) if output.is_dir() else output.exists()
    with pytest.raises(kind) as raised:
        prepare(config, ALONE, origins or Origins())
    assert (tree(output) if output.is_dir() else output.exists()) == before
    message = str(raised.value)
    assert "\n" not in message
    return message


def damaged(corpus: Path, folder: Path, spoil: Callable[[Path], Any]) -> Path:
    """A copy of the corpus in which `spoil` was done to the last shard of the train split."""
    shutil.copytree(corpus, folder)
    spoil(folder / Corpus(folder).train.info.shards[-1].file)
    return folder


def flip(file: Path) -> None:
    """Change one byte of the text in a shard."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    """Leave the first half of a shard."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def test_a_global_batch_that_does_not_divide(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus_folder, tmp_path / "run", training={"micro_batch_size": 3})
    message = refusal(config, Origins({"training.global_batch_size": "run.yaml:7"}))
    assert message.startswith("run.yaml:7: training.global_batch_size: ")
    assert "8" in message
    assert "3" in message


def test_a_global_batch_that_does_not_divide_by_the_ranks(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = run_config(corpus_folder, tmp_path / "run", training={"micro_batch_size": 8})
    messages = run_ranks(2, train_to_refusal, config)
    assert messages[0].startswith("ConfigError: ")
    assert "2 ranks" in messages[0]
    assert messages[0] == messages[1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"seed": 4}, "seed"),
        ({"optimizer": {"lr": 0.5}}, "optimizer.lr"),
        ({"objective": {"name": "mlm"}}, "objective.name"),
        ({"objective": {"name": "mlm", "mask_rate": 0.3}}, "objective.mask_rate"),
        ({"model": {"hidden_size": 32}}, "model.hidden_size"),
        ({"training": {"budget": {"amount": 1e9}}}, "training.budget.amount"),
        ({"training": {"precision": "bf16"}}, "training.precision"),
    ],
)
def test_a_folder_that_holds_another_run(
    trained: Callable[..., RunConfig], corpus_folder: Path, section: dict[str, Any], key: str
) -> None:
    before = trained("arlm")
    message = refusal(run_config(corpus_folder, Path(before.output), **section))
    assert message.startswith(f"{before.output}: holds a run with {key} = ")


def test_a_folder_that_holds_a_run_of_another_corpus(
    trained: Callable[..., RunConfig], partly_labeled: Path
) -> None:
    before = trained("arlm")
    assert "fingerprint" in refusal(run_config(partly_labeled, Path(before.output)))


def test_a_folder_that_holds_other_files(corpus_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    message = refusal(run_config(corpus_folder, tmp_path))
    assert message.startswith(f"{tmp_path}: ")
    assert "no run" in message


def test_a_file_in_the_place_of_the_folder(corpus_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    assert str(tmp_path / "run") in refusal(run_config(corpus_folder, tmp_path / "run"))


def test_a_run_whose_config_file_is_broken(
    trained: Callable[..., RunConfig], corpus_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained("arlm").output, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("seed: [3\nmodel")
    config = run_config(corpus_folder, tmp_path / "run")
    assert "config.yaml" in refusal(config, kind=DamagedError)


def test_a_missing_corpus(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(run_config(tmp_path / "none", tmp_path / "run"))


@pytest.mark.parametrize("spoil", [flip, cut, Path.unlink])
@pytest.mark.parametrize("world", [1, 2])
def test_a_damaged_shard(
    corpus_folder: Path, tmp_path: Path, world: int, spoil: Callable[[Path], Any]
) -> None:
    corpus = damaged(corpus_folder, tmp_path / "corpus", spoil)
    messages = run_ranks(world, train_to_refusal, run_config(corpus, tmp_path / "run"))
    for message in messages:
        assert message.startswith("DamagedFile: ")
        assert str(corpus) in message
        assert "\n" not in message
    # The first rank speaks to the user, so it has to know the shard even if another checked it.
    assert ".tar" in messages[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "kind"), [("manifest.json", ConfigError), ("tokenizer.model", DamagedError)]
)
def test_a_corpus_without_one_of_its_files(
    corpus_folder: Path, tmp_path: Path, name: str, kind: type[MegaptError]
) -> None:
    """Without its manifest a folder is no corpus."""
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    (tmp_path / "corpus" / name).unlink()
    config = run_config(tmp_path / "corpus", tmp_path / "run")
    assert name in refusal(config, kind=kind)


def test_a_tokenizer_that_is_not_the_corpus_s_own(corpus_folder: Path, tmp_path: Path) -> None:
    """The run keeps a copy of it, and would name it forever."""
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    flip(tmp_path / "corpus" / "tokenizer.model")
    config = run_config(tmp_path / "corpus", tmp_path / "run")
    assert "tokenizer.model" in refusal(config, kind=DamagedError)


@pytest.mark.parametrize(("split", "kind"), [("train", "training"), ("valid", "validation")])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_corpus_without_one_of_its_splits(
    corpus_folder: Path, tmp_path: Path, split: str, kind: str, mixed: bool
) -> None:
    """`megapt-prep reshard --split` leaves one of them."""
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    manifest = Manifest.load(tmp_path / "corpus")
    fields = {name: getattr(manifest, name) for name in Manifest.model_fields}
    for computed in ("format", "fingerprint"):
        del fields[computed]
    fields["splits"] = {name: info for name, info in manifest.splits.items() if name != split}
    Manifest.create(**fields).save(tmp_path / "corpus")
    paths = {"whole": {"path": str(corpus_folder)}, "half": {"path": str(tmp_path / "corpus")}}
    data = {"corpus": None, "mixture": {"corpora": paths}} if mixed else {}
    message = refusal(run_config(tmp_path / "corpus", tmp_path / "run", data=data))
    assert message.startswith(f"{tmp_path / 'corpus'}: has no {kind} documents")


def test_corpora_of_different_tokenizers(corpus_folder: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path, documents=60)
    corpora = {"a": {"path": str(corpus_folder)}, "b": {"path": str(other)}}
    data = {"corpus": None, "mixture": {"corpora": corpora}}
    message = refusal(run_config(corpus_folder, tmp_path / "run", data=data))
    assert "another tokenizer" in message
    assert str(other) in message


def test_a_global_batch_larger_than_the_corpus(corpus_folder: Path, tmp_path: Path) -> None:
    config = run_config(corpus_folder, tmp_path / "run", training={"global_batch_size": 400})
    message = refusal(config, Origins({"training.global_batch_size": "run.yaml:7"}))
    assert message.startswith("run.yaml:7: training.global_batch_size: 400 windows are more than ")
    assert "250 of 48 tokens" in message


def test_a_budget_larger_than_a_mixture_gives(corpus_folder: Path, tmp_path: Path) -> None:
    corpora = {"a": {"path": str(corpus_folder), "max_epochs": 0.1}}
    data = {"corpus": None, "mixture": {"corpora": corpora}}
    message = refusal(run_config(corpus_folder, tmp_path / "run", data=data))
    assert message.startswith("training.budget.amount: 2,000 tokens are more than ")
    assert "3 steps, 24 windows of 48" in message


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"attention": "sparse"}, "training.attention.name: no attention backend named 'sparse'"),
        ({"attention": "rows"}, "training.attention: 'rows' needs batches in rows; set "),
        ({"attention": "flex"}, "training.attention: 'flex' cannot train on a CPU; choose "),
        ({"attention": "varlen"}, "training.attention: 'varlen' cannot train on a CPU; choose "),
        (
            {"attention": "rows", "row_length": 98},
            "training.row_length: 98 positions are too few: an example of 'mgm' has up to 99 in "
            "windows of 48 tokens",
        ),
    ],
)
def test_attention_that_cannot_train_the_run(
    corpus_folder: Path, tmp_path: Path, training: dict[str, Any], said: str
) -> None:
    mgm = {"name": "mgm"}
    config = run_config(corpus_folder, tmp_path / "run", objective=mgm, training=training)
    place = {said.partition(":")[0]: "run.yaml:9"}
    assert refusal(config, Origins(place)).startswith(f"run.yaml:9: {said}")


@pytest.mark.parametrize(
    ("objective", "training", "model", "said"),
    [
        ("mgm", {"precision": "bf16"}, {}, "has no prefix attention, which the objective needs"),
        ("arlm", {"precision": "fp32"}, {}, "computes in bf16 or fp16"),
        ("arlm", {"precision": "bf16"}, {"dropout": 0.1}, "model.dropout: 0.1"),
    ],
)
def test_varlen_attention_that_cannot_train_the_run_on_a_gpu(
    corpus_folder: Path,
    tmp_path: Path,
    objective: str,
    training: dict[str, Any],
    model: dict[str, Any],
    said: str,
) -> None:
    """No GPU is asked: the device is only named."""
    gpu = Ranks(0, Mesh(), torch.device("cuda"))
    config = run_config(
        corpus_folder,
        tmp_path / "run",
        objective={"name": objective},
        model=model,
        training={"attention": "varlen", **training},
    )
    with pytest.raises(ConfigError) as raised:
        prepare(config, gpu, Origins())
    assert said in str(raised.value)
    assert "varlen" in str(raised.value)


def test_windows_in_which_the_objective_finds_nothing(sentences: Path, tmp_path: Path) -> None:
    message = refusal(run_config(sentences, tmp_path / "run", objective={"name": "nsp"}))
    assert "'nsp' finds no target for its head" in message
    assert "windows of 48 tokens" in message
    assert "a larger data.window, documents of more sentences" in message


def test_a_misspelt_objective(corpus_folder: Path, tmp_path: Path) -> None:
    message = refusal(run_config(corpus_folder, tmp_path / "run", objective={"name": "mlmm"}))
    assert "objective.name" in message
    assert "'mlm'" in message


def test_a_setting_that_the_objective_does_not_have(corpus_folder: Path, tmp_path: Path) -> None:
    objective = {"name": "mlm", "mask_ratio": 0.2}
    message = refusal(run_config(corpus_folder, tmp_path / "run", objective=objective))
    assert "objective.mask_ratio" in message
    assert "'mask_rate'" in message


def test_classification_without_classes(sentences: Path, tmp_path: Path) -> None:
    message = refusal(run_config(sentences, tmp_path / "run", objective={"name": "msc"}))
    assert "label" in message


def test_classification_with_some_documents_unlabeled(partly_labeled: Path, tmp_path: Path) -> None:
    message = refusal(run_config(partly_labeled, tmp_path / "run", objective={"name": "msc"}))
    assert "objective.unlabeled=true" in message


def test_another_system_than_linux(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    config = run_config(corpus_folder, tmp_path / "run")
    assert refusal(config) == "megapt trains on Linux, not on 'darwin'"
