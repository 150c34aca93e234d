import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_prep.dedup import NearSettings, signatures
from data_prep.dedup.minhash import NO_SIGNATURE, sketch

SLOTS = 128


def equal_share(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first == second).mean(axis=1)


@pytest.mark.parametrize(("union", "shared"), [(3, 1), (40, 8), (40, 32), (300, 240), (5000, 2500)])
def test_estimate_is_unbiased_and_no_wider_than_the_binomial(union: int, shared: int) -> None:
    rng = np.random.default_rng(union)
    pairs, own = 600, (union - shared) // 2
    elements = rng.integers(0, 1 << 64, (pairs, union), dtype=np.uint64)
    sides = [elements[:, : shared + own], np.delete(elements, np.s_[shared : shared + own], axis=1)]
    made = []
    for side in sides:
        offsets = np.arange(pairs + 1) * side.shape[1]
        made.append(sketch(side.reshape(-1), offsets, SLOTS, seed=7).astype(np.uint16))
    jaccard, estimates = shared / union, equal_share(made[0], made[1])
    variance = jaccard * (1 - jaccard) / SLOTS
    assert abs(estimates.mean() - jaccard) < 4 * (variance / pairs) ** 0.5 + 2**-16
    assert estimates.var() < 1.3 * variance


@given(
    sizes=st.lists(st.sampled_from([0, 1, 2, 7, 50, 400]), max_size=12),
    slots=st.sampled_from([16, 112, 128]),
    seed=st.integers(0, 2**64 - 1),
)
def test_sketch_is_of_the_set_alone(sizes: list[int], slots: int, seed: int) -> None:
    rng = np.random.default_rng(len(sizes))
    sets = [rng.integers(0, 1 << 64, size, dtype=np.uint64) for size in sizes]
    flat = np.concatenate([np.empty(0, np.uint64), *sets])
    rows = sketch(flat, np.cumsum([0, *sizes]), slots, seed)
    assert rows.shape == (len(sizes), slots)
    for row, elements in zip(rows, sets, strict=True):
        shuffled = rng.permutation(np.concatenate([elements, elements]))
        offsets = np.array([0, len(shuffled)])
        assert (sketch(shuffled, offsets, slots, seed)[0] == row).all()
        assert (row == 0xFFFFFFFF).all() == (len(elements) == 0)


@given(st.lists(st.text(alphabet="abc d好书。", max_size=60), max_size=12))
def test_a_batch_gives_what_its_texts_give(texts: list[str]) -> None:
    settings = NearSettings()
    rows = signatures(texts, settings)
    assert rows.shape == (len(texts), settings.permutations)
    for row, text in zip(rows, texts, strict=True):
        assert row.tolist() == signatures([text], settings)[0].tolist()


def test_many_and_long_texts_are_cut_into_groups() -> None:
    texts = [f"tiny text number {number}" for number in range(3000)]
    texts.insert(1500, "word " * 100_000 + "好书" * 50_000)
    rows = signatures(texts, NearSettings())
    for number in (0, 1023, 1024, 1499, 1500, 1501, 3000):
        assert rows[number].tolist() == signatures([texts[number]], NearSettings())[0].tolist()


def test_texts_that_repeat_themselves() -> None:
    texts = ["哈" * 300_000, "哈" * 20, "no no " * 3000, "no no no no no no no", "哈" * 400]
    rows = signatures(texts, NearSettings())
    assert (rows[0] == rows[1]).all()
    assert (rows[0] == rows[4]).all()
    assert (rows[2] == rows[3]).all()
    assert equal_share(rows[:1], rows[2:3])[0] < 0.05


def test_short_texts() -> None:
    texts = ["", "...", "好", "很好。", "很好！", "one two", "One, two."]
    rows = signatures(texts, NearSettings())
    assert (rows == NO_SIGNATURE).all(axis=1).tolist() == [True, True] + [False] * 5
    assert (rows[3] == rows[4]).all()
    assert (rows[5] == rows[6]).all()
    assert equal_share(rows[2:3], rows[3:4])[0] < 0.1
    rows = signatures(texts, NearSettings(min_words=2))
    assert (rows == NO_SIGNATURE).all(axis=1).tolist() == [True] * 3 + [False] * 4


def test_seeds_give_other_signatures() -> None:
    text = "the same text in two hash families has nothing in common"
    first, second = (signatures([text], NearSettings(seed=seed)) for seed in (0, 1))
    assert equal_share(first, second)[0] < 0.05


def test_signatures_are_the_same_everywhere() -> None:
    rows = signatures(
        ["the quick brown fox jumps over the lazy dog", "这本书非常好，值得一读"], NearSettings()
    )
    assert rows[:, :4].tolist() == [[49992, 36932, 60246, 35650], [65234, 1, 32169, 47780]]


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match=r"20 \* 8 is more than permutations = 128"):
        NearSettings(bands=20, rows=8)
    for bad in (
        {"threshold": 0},
        {"threshold": 1.1},
        {"ngram": 0},
        {"permutations": 8},
        {"seed": -1},
    ):
        with pytest.raises(ValidationError):
            NearSettings(**bad)


@pytest.mark.parametrize("permutations", [16, 64, 128, 256, 1000])
@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.95, 1.0])
def test_verification_lets_97_of_100_pass_at_the_threshold(
    permutations: int, threshold: float
) -> None:
    settings = NearSettings(permutations=permutations, threshold=threshold, bands=2, rows=4)

    def reached(slots: int) -> float:
        chances = (
            math.comb(permutations, k) * threshold**k * (1 - threshold) ** (permutations - k)
            for k in range(slots, permutations + 1)
        )
        return sum(chances)

    assert reached(settings.accepted_slots) >= 0.97 > reached(settings.accepted_slots + 1)
    assert settings.verified_probability(threshold) == pytest.approx(
        reached(settings.accepted_slots)
    )


def test_probabilities_of_the_defaults() -> None:
    settings = NearSettings()
    assert settings.candidate_probability(0.8) == pytest.approx(1 - (1 - 0.8**6) ** 16)
    assert settings.found_probability(0.8) > 0.96
    assert settings.found_probability(0.5) < 1e-6
    assert settings.found_probability(1.0) == 1.0


def test_probabilities_on_the_page() -> None:
    page = Path(__file__).parents[2] / "docs" / "deduplication.md"
    rows = re.findall(
        r"^\| (\d\.\d\d) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$",
        page.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 10
    settings = NearSettings()
    for jaccard, *percents in rows:
        s = float(jaccard)
        chances = (
            settings.candidate_probability(s),
            settings.verified_probability(s),
            settings.found_probability(s),
        )
        assert percents == [f"{100 * chance:.1f}" for chance in chances]
