"""What a model writes of held-out texts: its kind follows from how its trunk attends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from megapt.config import RunConfig
from megapt.data import Corpus
from megapt.distributed.ranks import Ranks
from megapt.evaluation import Sample, load_run, sample_texts, write_samples
from tests.ranks import run_ranks
from tests.training.runs import run_config, train

KINDS = {
    "arlm": "continuation",
    "mgm": "rewriting",
    "mlm": "filling",
    "msc": "filling",
    "bert": "filling",
}
MASK = "[MASK]"
Samples = list[Sample]


def train_all(ranks: Ranks, configs: list[RunConfig]) -> None:
    for config in configs:
        train(ranks, config)


@pytest.fixture(scope="module")
def write(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Samples]:
    """Write the samples of an objective's run."""
    folder = tmp_path_factory.mktemp("members")
    configs = {
        name: run_config(
            corpus.where,
            folder / name,
            data={"window": 96},
            objective={"name": name},
            training={"budget": {"amount": 1000.0}, "validate_every": 0},
        )
        for name in (*KINDS, "nsp")
    }
    run_ranks(1, train_all, list(configs.values()))

    def samples(objective: str, samples: int = 3, sample_tokens: int = 6, seed: int = 3) -> Samples:
        run = load_run(configs[objective].output)
        texts = sample_texts(corpus, samples, run.config.data.window)
        return write_samples(run, texts, max_tokens=sample_tokens, seed=seed)

    return samples


@pytest.mark.parametrize("objective", KINDS)
def test_the_kind_of_sample_follows_from_the_attention(
    write: Callable[..., Samples], objective: str
) -> None:
    samples = write(objective)
    assert [sample.kind for sample in samples] == [KINDS[objective]] * 3
    assert all(sample.prompt for sample in samples)


def test_an_objective_without_a_token_head_writes_nothing(write: Callable[..., Samples]) -> None:
    assert write("nsp") == []


@pytest.mark.parametrize("objective", [*KINDS, "nsp"])
def test_no_samples_may_be_asked_for(write: Callable[..., Samples], objective: str) -> None:
    assert write(objective, samples=0) == []


@pytest.mark.parametrize("objective", ["mlm", "arlm"])
def test_the_same_run_writes_the_same_samples(
    write: Callable[..., Samples], objective: str
) -> None:
    assert write(objective) == write(objective)


def test_another_seed_writes_other_continuations_of_the_same_prompts(
    write: Callable[..., Samples],
) -> None:
    first, second = write("arlm", seed=3), write("arlm", seed=4)
    assert [sample.prompt for sample in first] == [sample.prompt for sample in second]
    assert [sample.text for sample in first] != [sample.text for sample in second]


def test_all_members_are_asked_about_the_same_held_out_texts(
    write: Callable[..., Samples],
) -> None:
    """mlm, msc and bert get the same masks; arlm gets the beginnings of the texts under them."""
    assert [s.prompt for s in write("mlm")] == [s.prompt for s in write("msc")]
    assert [s.prompt for s in write("mlm")] == [s.prompt for s in write("bert")]
    for beginning, masked in zip(write("arlm"), write("mlm"), strict=True):
        shown = masked.prompt.partition(MASK)[0].strip()
        assert beginning.prompt.startswith(shown) or shown.startswith(beginning.prompt)


@pytest.mark.parametrize("objective", ["mlm", "msc", "bert"])
def test_a_filling_fills_every_mask_and_leaves_the_rest(
    write: Callable[..., Samples], objective: str
) -> None:
    for sample in write(objective):
        assert MASK in sample.prompt
        assert MASK not in sample.text
        assert sample.repetition is None
        place = 0
        for part in sample.prompt.split(MASK):
            place = sample.text.find(part.strip(), place)
            assert place >= 0, "the text between two masks stays, in its order"
            place += len(part.strip())


def test_a_rewriting_begins_from_masked_text(write: Callable[..., Samples]) -> None:
    assert all(MASK in sample.prompt for sample in write("mgm"))
    assert not any(MASK in sample.prompt for sample in write("arlm"))


def test_a_generated_text_has_a_rate_of_repetition(write: Callable[..., Samples]) -> None:
    for objective in ("arlm", "mgm"):
        for sample in write(objective, sample_tokens=12):
            assert sample.repetition is None or 0 <= sample.repetition <= 1
        assert all(sample.repetition is None for sample in write(objective, sample_tokens=3))


def test_more_samples_than_documents(write: Callable[..., Samples], corpus: Corpus) -> None:
    samples = write("mlm", samples=10_000)
    assert 0 < len(samples) <= len(corpus.validation)


def test_prompts_hold_english_and_chinese(write: Callable[..., Samples]) -> None:
    prompts = [sample.prompt for sample in write("arlm", samples=8, sample_tokens=1)]
    assert any(prompt.isascii() for prompt in prompts)
    assert any(not prompt.isascii() for prompt in prompts)
