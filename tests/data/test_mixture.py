from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from megapt.data.mixture import Member, Mixture, Stage, temperature_weights
from megapt.data.pattern import DENOMINATOR, Ints
from megapt.errors import ConfigError

WALK = 400


@st.composite
def plans(draw: st.DrawFn, *, capped: bool = True) -> tuple[list[Member], list[Stage]]:
    """1 to 6 corpora, some with max_epochs, and 1 to 4 stages, with weights of 0 among them."""
    corpora = draw(st.integers(1, 6))
    caps = st.sampled_from([0.5, 1, 1.3, 2, 7, None] if capped else [None])
    members = [
        Member(f"corpus-{number}", draw(st.integers(2, 40)), draw(caps))
        for number in range(corpora)
    ]
    later = draw(st.lists(st.integers(1, WALK - 50), max_size=3, unique=True))
    some = st.lists(st.integers(0, 9), min_size=corpora, max_size=corpora).filter(any)
    return members, [Stage(start, tuple(draw(some))) for start in [0, *sorted(later)]]


def walk(mixture: Mixture, length: int = WALK) -> tuple[Ints, Ints]:
    """Locate the windows from 0 on, up to `length` of them."""
    return mixture.locate(np.arange(min(length, mixture.total or length), dtype=np.int64))


def expected_weights(
    members: list[Member], stages: list[Stage], order: Ints
) -> list[list[Fraction]]:
    """The weights at each window of a walk: those of its stage without the corpora used up."""
    seen: Counter[int] = Counter()
    weights = []
    for number, corpus in enumerate(order.tolist()):
        [stage] = [stage for stage in stages if stage.start <= number][-1:]
        live = [
            Fraction(weight)
            if member.max_epochs is None or seen[c] + 1 <= cap(member)
            else Fraction(0)
            for c, (member, weight) in enumerate(zip(members, stage.weights, strict=True))
        ]
        weights.append([weight / sum(live) for weight in live])
        seen[corpus] += 1
    return weights


def cap(member: Member) -> float:
    assert member.max_epochs is not None
    # The caps of the tests are multiples of a tenth.
    return round(member.max_epochs * 10) * member.windows // 10


def assert_exact(order: Ints, weights: tuple[Fraction, ...] | list[Fraction]) -> None:
    """Assert Tijdeman's bound for every prefix of `order`, in whole numbers."""
    period = np.lcm.reduce([weight.denominator for weight in weights])
    shares = np.array([int(weight * period) for weight in weights])
    slack = 2 * np.count_nonzero(shares) - 2
    counts = np.cumsum(order[:, None] == np.arange(len(weights)), axis=0)
    off = np.abs(counts * period - np.arange(1, len(order) + 1)[:, None] * shares)
    assert (off * slack <= period * (slack - 1)).all() if slack else not off.any()
    assert (off < period).all()


@given(plans())
def test_every_corpus_gives_its_windows_in_order_without_gap(
    plan: tuple[list[Member], list[Stage]],
) -> None:
    order, places = walk(Mixture(*plan))
    for corpus in range(len(plan[0])):
        mine = places[order == corpus]
        assert mine.tolist() == list(range(len(mine)))


@given(plans())
def test_counts_and_epochs_are_those_of_a_walk(plan: tuple[list[Member], list[Stage]]) -> None:
    members, _ = plan
    mixture = Mixture(*plan)
    order, _ = walk(mixture)
    windows = np.array([member.windows for member in members])
    for n in range(len(order) + 1):
        counts = np.bincount(order[:n], minlength=len(members))
        assert mixture.counts(n).tolist() == counts.tolist()
        assert mixture.epochs(n).tolist() == (counts / windows).tolist()


@given(plans())
def test_weights_are_renormalised_where_a_stage_begins_or_a_corpus_is_used_up(
    plan: tuple[list[Member], list[Stage]],
) -> None:
    mixture = Mixture(*plan)
    order, _ = walk(mixture)
    for number, weights in enumerate(expected_weights(*plan, order)):
        assert list(mixture.weights(number)) == weights


@given(plans())
def test_every_prefix_of_constant_weights_is_exact_within_tijdemans_bound(
    plan: tuple[list[Member], list[Stage]],
) -> None:
    order, _ = walk(Mixture(*plan))
    weights = expected_weights(*plan, order)
    # A stage with the weights of the one before starts again, too.
    changes = {stage.start for stage in plan[1]}
    changes |= {n for n in range(1, len(order)) if weights[n] != weights[n - 1]}
    for start, stop in pairwise(sorted(n for n in {*changes, len(order)} if n <= len(order))):
        assert_exact(order[start:stop], weights[start])


@given(plans())
def test_caps_are_reached_but_never_passed_and_the_mixture_ends_when_none_is_left(
    plan: tuple[list[Member], list[Stage]],
) -> None:
    members, stages = plan
    mixture = Mixture(members, stages)
    capped = {c: cap(member) for c, member in enumerate(members) if member.max_epochs is not None}
    far = mixture.counts(WALK * 1000 if mixture.total is None else mixture.total)
    assert all(far[corpus] <= limit for corpus, limit in capped.items())
    used_up = {corpus for corpus, limit in capped.items() if far[corpus] == limit}
    # Which stage the mixture ends in, if it does.
    last = [s for s in stages if mixture.total is None or s.start <= mixture.total][-1]
    weighted = {corpus for corpus, weight in enumerate(last.weights) if weight}
    assert weighted & set(capped) <= used_up
    if mixture.total is None:
        assert not weighted <= used_up
    else:
        assert weighted <= used_up
        assert far.sum() == mixture.total
        with pytest.raises(ConfigError, match=f"ends after {mixture.total} windows"):
            mixture.locate(np.array([0, mixture.total]))
        with pytest.raises(ConfigError, match=f"ends after {mixture.total} windows"):
            mixture.counts(mixture.total + 1)
        with pytest.raises(ConfigError, match=f"ends after {mixture.total} windows"):
            mixture.weights(mixture.total)


@given(plans(), st.randoms(use_true_random=False), st.integers(1, 7))
def test_the_answer_does_not_depend_on_how_numbers_are_asked(
    plan: tuple[list[Member], list[Stage]], random: object, parts: int
) -> None:
    mixture = Mixture(*plan)
    order, places = walk(mixture)
    numbers = np.arange(len(order))
    random.shuffle(numbers)  # type: ignore[attr-defined]
    for part in np.array_split(numbers, parts):
        corpora, mine = Mixture(*plan).locate(part)
        assert corpora.dtype == mine.dtype == np.int64
        assert corpora.tolist() == order[part].tolist()
        assert mine.tolist() == places[part].tolist()


@given(plans(capped=False), st.integers(0, 10**13))
def test_a_far_seek_is_a_walk_through_more_periods(
    plan: tuple[list[Member], list[Stage]], periods: int
) -> None:
    mixture = Mixture(*plan)
    start = plan[1][-1].start
    weights = mixture.weights(start)
    period = int(np.lcm.reduce([weight.denominator for weight in weights]))
    shares = np.array([int(weight * period) for weight in weights])
    near = np.arange(start, start + 2 * period)
    far = near + periods * period
    order, places = mixture.locate(near)
    corpora, mine = mixture.locate(far)
    assert corpora.tolist() == order.tolist()
    assert mine.tolist() == (places + periods * shares[order]).tolist()
    before, after = mixture.counts(int(far[0])), mixture.counts(int(far[-1]) + 1)
    assert (after - before).tolist() == (2 * shares).tolist()


@given(st.integers(0, 2**62))
def test_a_mixture_of_one_corpus_is_that_corpus(number: int) -> None:
    mixture = Mixture([Member("zh", 7)], [Stage(0, (0.3,))])
    corpora, places = mixture.locate(np.array([number, 0, 5]))
    assert corpora.tolist() == [0, 0, 0]
    assert places.tolist() == [number, 0, 5]
    assert mixture.total is None
    assert Mixture([Member("zh", 7, 2.5)], [Stage(0, (1,))]).total == 17


def test_a_corpus_may_be_added_and_taken_out_by_the_schedule() -> None:
    members = [Member("en", 10), Member("zh", 10), Member("code", 10)]
    stages = [Stage(0, (1, 1, 0)), Stage(10, (1, 1, 2)), Stage(18, (0, 0, 1))]
    mixture = Mixture(members, stages)
    assert [mixture.counts(n).tolist() for n in (10, 18, 1018)] == [
        [5, 5, 0],
        [7, 7, 4],
        [7, 7, 1004],
    ]


def test_the_mixture_ends_where_a_stage_has_nothing_to_draw_on_though_another_would_follow() -> (
    None
):
    members = [Member("en", 10, 1), Member("zh", 10)]
    assert Mixture(members, [Stage(0, (1, 0)), Stage(11, (0, 1))]).total == 10
    assert Mixture(members, [Stage(0, (1, 0)), Stage(10, (0, 1))]).total is None


def test_a_cap_beyond_all_window_numbers_is_none() -> None:
    members = [Member("en", 10, 1e30), Member("zh", 10)]
    mixture = Mixture(members, [Stage(0, (1, 3)), Stage(4, (1, 1e-9))])
    assert mixture.total is None
    assert mixture.counts(4).tolist() == [1, 3]


def test_decimal_fractions_count_as_they_are_written() -> None:
    # 0.29 × 100 is 28.999… in doubles.
    assert Mixture([Member("en", 100, 0.29)], [Stage(0, (1,))]).total == 29
    pair = [Member("en", 10), Member("zh", 10)]
    assert Mixture(pair, [Stage(0, (0.7, 0.3))]).weights(0) == (Fraction(7, 10), Fraction(3, 10))
    trio = [*pair, Member("code", 10)]
    fifth = Fraction(1, 5)
    for weights in ((3, 1, 1), (0.6, 0.2, 0.2), (1.5, 0.5, 0.5)):
        assert Mixture(trio, [Stage(0, weights)]).weights(0) == (3 * fifth, fifth, fifth)


# Patterns of 65,536 entries take long enough to check.
@settings(max_examples=8)
@given(st.lists(st.floats(1e-12, 1e3), min_size=3, max_size=6))
def test_other_weights_are_rounded_to_65536ths_and_then_exact(weights: list[float]) -> None:
    total = sum(Fraction(str(weight)) for weight in weights)
    true = [Fraction(str(weight)) / total for weight in weights]
    assume(np.lcm.reduce([weight.denominator for weight in true], dtype=object) > DENOMINATOR)
    mixture = Mixture([Member(str(c), 10) for c in range(len(weights))], [Stage(0, tuple(weights))])
    used = mixture.weights(0)
    assert sum(used) == 1
    unit = Fraction(1, DENOMINATOR)
    for weight, real in zip(used, true, strict=True):
        assert weight % unit == 0
        # Those raised to one entry take it from the others.
        assert abs(weight - real) < unit * len(weights)
        if all(other >= unit for other in true):
            assert abs(weight - real) < unit
        if real < unit:
            assert weight == unit
    assert_exact(walk(mixture, DENOMINATOR)[0], used)


def test_no_corpus_is_rounded_away_even_when_many_are_tiny() -> None:
    weights = (1.0, *[1e-9] * 50, 2.000001 / DENOMINATOR)
    mixture = Mixture([Member(str(c), 10) for c in range(52)], [Stage(0, weights)])
    used = [weight * DENOMINATOR for weight in mixture.weights(0)]
    assert used == [DENOMINATOR - 52, *[1] * 50, 2]


def test_weights_over_which_the_largest_deficit_first_is_a_window_off() -> None:
    weights = [Fraction(n, 12) for n in (1, 1, 1, 3, 3, 3)]
    counts = [0] * 6
    worst = Fraction(0)
    for n in range(1, 13):
        deficits = [weight * n - count for weight, count in zip(weights, counts, strict=True)]
        counts[deficits.index(max(deficits))] += 1
        off = (abs(w * n - count) for w, count in zip(weights, counts, strict=True))
        worst = max(worst, *off)
    assert worst >= 1
    mixture = Mixture([Member(str(c), 10) for c in range(6)], [Stage(0, (1, 1, 1, 3, 3, 3))])
    assert_exact(walk(mixture)[0], weights)


def test_the_order_never_changes() -> None:
    # A run resumed under another version must go on in the order that it began with.
    members = [Member("en", 8), Member("zh", 5, 1.2), Member("code", 4)]
    mixture = Mixture(members, [Stage(0, (5, 3, 0)), Stage(12, (5, 3, 2))])
    order, places = walk(mixture, 36)
    assert "".join(map(str, order)) == "010010100100010201020002002000200200"
    assert places[-6:].tolist() == [4, 20, 21, 5, 22, 23]
    sizes = [3_000_000_000, 900_000_000, 40_000_000]
    spread = Mixture(
        [Member("en", 8), Member("zh", 5), Member("code", 4)],
        [Stage(0, temperature_weights(sizes, 1 / 0.3))],
    )
    assert [weight * DENOMINATOR for weight in spread.weights(0)] == [33256, 23174, 9106]
    order, _ = walk(spread, 36)
    assert "".join(map(str, order)) == "010102010102010101020101020101010020"
    order, places = spread.locate(np.arange(10**12, 10**12 + 3))
    assert order.tolist() == [1, 0, 1]
    assert places.tolist() == [353607177734, 507446289063, 353607177735]


sizes = st.lists(st.integers(1, 10**13), min_size=1, max_size=6)


@given(sizes)
def test_temperature_1_is_in_proportion_and_a_high_one_uniform(tokens: list[int]) -> None:
    share = [size / sum(tokens) for size in tokens]
    assert temperature_weights(tokens, 1) == pytest.approx(share, rel=1e-12)
    assert temperature_weights(tokens, 1e9) == pytest.approx([1 / len(tokens)] * len(tokens))


@given(sizes, st.floats(1, 100))
def test_temperature_weights_are_powers_of_the_sizes(tokens: list[int], temperature: float) -> None:
    weights = temperature_weights(tokens, temperature)
    assert sum(weights) == pytest.approx(1)
    for size, weight in zip(tokens, weights, strict=True):
        power = (size / tokens[0]) ** (1 / temperature)
        assert weight / weights[0] == pytest.approx(power, rel=1e-9)


@pytest.mark.parametrize("temperature", [0.3, 0, -1, float("inf"), float("nan")])
def test_a_temperature_below_1_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="give 1 "):
        temperature_weights([5, 3], temperature)


def test_an_empty_corpus_has_no_temperature_weight() -> None:
    with pytest.raises(ValueError, match="corpus number 1: 0 tokens"):
        temperature_weights([5, 0], 2)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], r"start at windows \[\]; the first must be 0"),
        ([Stage(1, (1, 1))], r"start at windows \[1\]; the first must be 0"),
        ([Stage(0, (1, 1)), Stage(9, (1, 2)), Stage(9, (1, 3))], "they must increase"),
        ([Stage(0, (1, 1)), Stage(9, (1,))], "from window 9: 1 weights for 2 .*'en', 'zh'"),
        ([Stage(0, (1, -0.5))], "corpus 'zh' has weight -0.5"),
        ([Stage(0, (float("nan"), 1))], "corpus 'en' has weight nan"),
        ([Stage(0, (1, float("inf")))], "corpus 'zh' has weight inf"),
    ],
)
def test_stages_that_make_no_mixture_are_refused(stages: list[Stage], message: str) -> None:
    """A configuration cannot hold them."""
    with pytest.raises(ValueError, match=message):
        Mixture([Member("en", 10), Member("zh", 10)], stages)


def test_weights_that_are_all_0_are_wrong_input() -> None:
    with pytest.raises(ConfigError, match="all of 'en', 'zh' have weight 0"):
        Mixture([Member("en", 10), Member("zh", 10)], [Stage(0, (0, 0))])


def test_members_that_give_no_window_are_refused() -> None:
    with pytest.raises(ConfigError, match="corpus 'zh': has no windows"):
        Member("zh", 0)
    with pytest.raises(ValueError, match="corpus 'zh': max_epochs is 0;"):
        Member("zh", 10, 0)
    with pytest.raises(ConfigError, match=r"corpus 'zh': max_epochs of 0.09 .* 10 windows"):
        Member("zh", 10, 0.09)
    with pytest.raises(ValueError, match="no corpus"):
        Mixture([], [Stage(0, ())])


def test_windows_before_the_first_are_refused() -> None:
    mixture = Mixture([Member("en", 10)], [Stage(0, (1,))])
    with pytest.raises(ValueError, match="window -1: "):
        mixture.locate(np.array([3, -1]))
    with pytest.raises(ValueError, match="window -2: "):
        mixture.counts(-2)
