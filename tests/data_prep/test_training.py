from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prep_support import Prep, write_jsonl

from data_prep.errors import PrepError
from data_prep.settings import BuildSettings
from data_prep.tokenizers import load_tokenizer
from data_prep.tokenizers.training import LINE_BYTES, draw_sample, train_tokenizer, training_lines

TEXTS = st.lists(st.text(st.sampled_from("ab我é "), min_size=1, max_size=20), max_size=30)


def size(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


@given(TEXTS, st.integers(1, 200), st.integers(0, 3), st.randoms())
def test_sample_is_bounded_and_independent_of_order(
    texts: list[str], limit: int, seed: int, rng: Random
) -> None:
    sample = draw_sample(texts, limit, seed)
    assert size(sample) <= limit
    assert size(sample) > min(limit, size(texts)) - 3, "only half a character may be lost"
    rng.shuffle(texts)
    assert draw_sample(texts, limit, seed) == sample


@given(st.lists(st.text(st.sampled_from("word 我\n"), max_size=5000), max_size=3))
def test_no_line_is_too_long_or_lost(texts: list[str]) -> None:
    lines = list(training_lines(texts))
    assert all(len(line.encode()) <= LINE_BYTES for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(texts).replace("\n", "").replace(" ", "")


def test_seed_draws_another_sample() -> None:
    texts = [f"text {number}" for number in range(100)]
    assert draw_sample(texts, 100, 0) != draw_sample(texts, 100, 1)


def test_training_is_reproducible(corpus_file: Path, tokenizer_path: Path, tmp_path: Path) -> None:
    train_tokenizer(BuildSettings.of_files(corpus_file), tmp_path, 520)
    assert (tmp_path / "tokenizer.model").read_bytes() == tokenizer_path.read_bytes()


def test_options(prep: Prep, corpus_file: Path, tmp_path: Path) -> None:
    options = ("--model", "bpe", "--sentinels", 5, "--sample-mb", 0.05, "--coverage", 1.0)
    done = prep(
        "tokenizer", "--input", corpus_file, "--output", tmp_path, "--vocab-size", 450, *options
    )
    assert (done.code, done.err) == (0, "")
    tokenizer = load_tokenizer(tmp_path / "tokenizer.model")
    assert len(tokenizer.vocabulary.sentinels) == 5
    assert tokenizer.vocabulary.size == 450
    assert tokenizer.sha256 in done.out


def test_largest_vocabulary_is_told_and_works(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "few.jsonl", [{"text": "the cat and the dog and the cat"}])
    with pytest.raises(
        PrepError, match=r"5000 is too large for this text: at most \d+ fits"
    ) as error:
        train_tokenizer(BuildSettings.of_files(source), tmp_path / "out", 5000)
    largest = int(str(error.value).split()[-2])
    assert (
        train_tokenizer(BuildSettings.of_files(source), tmp_path / "out", largest).vocabulary.size
        == largest
    )


def test_smallest_vocabulary_is_told(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "few.jsonl", [{"text": "the cat"}])
    with pytest.raises(PrepError, match=r"50 is too small: .* need at least \d+"):
        train_tokenizer(BuildSettings.of_files(source), tmp_path / "out", 50)
    assert not (tmp_path / "out").exists()


def test_input_without_text(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "empty.jsonl", [{"text": "  "}])
    with pytest.raises(PrepError, match="holds no text"):
        train_tokenizer(BuildSettings.of_files(source), tmp_path / "out", 500)
