"""A comparison in words: no claim beyond the intervals."""

from __future__ import annotations

from megapt.comparison.report import render
from megapt.comparison.results import Member
from megapt.comparison.summary import summarize
from megapt.evaluation.scores import Score
from tests.comparison.reporting import (
    PROBE,
    REPETITION,
    SURPRISE,
    comparison,
    member,
    three_members,
)


def test_reading_of_losses_names_who_beats_unigrams() -> None:
    text = summarize(three_members())
    assert (
        "2 of 3 members have a validation loss below the unigram loss: arlm by 24.8 %, "
        "mlm by 32.0 %. Not below the unigram loss: nsp." in text
    )


def probed(name: str, low: float, high: float) -> Member:
    return member(name, scores={"probe": Score(value=(low + high) / 2, interval=(low, high))})


def surprised(name: str, low: float, high: float) -> Member:
    return member(name, scores={"surprise": Score(value=(low + high) / 2, interval=(low, high))})


def test_reading_ranks_two_members_only_if_their_intervals_are_apart() -> None:
    close = summarize(comparison(probed("a", 0.60, 0.63), probed("b", 0.62, 0.66)))
    assert (
        "accuracy is highest for b: 64.0 % (62.0–66.0); its interval overlaps that of the next "
        "member, a" in close
    )
    assert "shows no clear difference between the two" in close
    apart = summarize(comparison(probed("a", 0.60, 0.63), probed("b", 0.64, 0.66)))
    assert "b: 65.0 % (64.0–66.0); its interval is above that of the next member, a: 61.5" in apart
    assert "overlaps" not in apart


def test_of_a_measure_whose_low_values_are_better_the_lowest_is_best() -> None:
    results = comparison(
        surprised("a", 5.0, 5.2),
        surprised("b", 4.0, 4.2),
        surprised("c", 6.4, 6.6),
        measures=[SURPRISE],
    )
    text = summarize(results)
    assert (
        "Surprise is lowest for b: 4.100 nats (4.000–4.200); its interval is below that of the "
        "next member, a: 5.100 nats (5.000–5.200)." in text
    )
    assert (
        "Intervals relative to the unigram, 6.500 nats: overlapping for c; below for b, a." in text
    )
    assert "untrained" not in text
    page = render(results)
    assert "Surprise, nats" in page
    assert "how unlikely &lt;texts&gt; are" in page
    close = comparison(surprised("a", 4.1, 4.3), surprised("b", 4.0, 4.2), measures=[SURPRISE])
    assert "shows no clear difference between the two" in summarize(close)


def test_touching_intervals_overlap() -> None:
    assert "overlaps" in summarize(comparison(probed("a", 0.60, 0.63), probed("b", 0.63, 0.66)))


def test_reading_compares_with_majority_class_and_untrained_trunk() -> None:
    text = summarize(
        comparison(
            probed("good", 0.60, 0.63),
            probed("same", 0.57, 0.60),
            probed("chance", 0.51, 0.54),
            probed("worse", 0.48, 0.51),
        )
    )
    assert (
        "Intervals relative to the majority class, 52.1 %: above for good, same; "
        "overlapping for chance; below for worse." in text
    )
    assert (
        "Intervals relative to the untrained trunk, 56.6 % (55.1–58.1): above for good; "
        "overlapping for same; below for chance, worse." in text
    )


def test_a_diverged_member_does_not_beat_unigrams() -> None:
    results = comparison(member("mlm", validation_loss=float("nan")))
    assert "0 of 1 members" in summarize(results)
    assert "Not below the unigram loss: mlm." in summarize(results)
    assert "nan" in render(results)


def test_every_measure_with_intervals_has_its_sentences_in_order() -> None:
    scores = {
        "probe": Score(value=0.6, interval=(0.58, 0.62)),
        "surprise": Score(value=5.0, interval=(4.9, 5.1)),
        "repetition": Score(value=0.1),
    }
    measures = [SURPRISE, REPETITION, PROBE]
    text = summarize(comparison(member("a", scores=scores), measures=measures))
    assert (
        "Surprise is lowest for a: 5.000 nats (4.900–5.100). Intervals relative to the unigram"
        in text
    )
    assert text.index("Surprise is lowest") < text.index("Probe accuracy is highest")
    assert "Repetition is" not in text
