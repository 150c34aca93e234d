"""The summary of a comparison in words: only what its numbers and intervals support."""

from __future__ import annotations

from collections.abc import Sequence

from megapt.comparison.results import MeasureRecord, Member, Results
from megapt.evaluation.scores import Interval, Score

NONE = "–"


def percent(share: float | None) -> str:
    """Return a share in percent; a dash for None."""
    return NONE if share is None else f"{100 * share:.1f} %"


def in_unit(value: float, unit: str, interval: Interval | None = None) -> str:
    """Return a value with its unit, shares in percent, and the ends of its interval."""
    scale, digits, sign = (100, 1, "%") if unit == "share" else (1, 3, unit)
    text = f"{scale * value:.{digits}f} {sign}".rstrip()
    if interval is None:
        return text
    low, high = (f"{scale * end:.{digits}f}" for end in interval)
    return f"{text} ({low}–{high})"


def score_text(score: Score | None, unit: str) -> str:
    """Return a score with its unit and the ends of its interval; a dash for None."""
    return NONE if score is None else in_unit(score.value, unit, score.interval)


def _read_losses(members: Sequence[Member]) -> str:
    better = [
        f"{member.name} by {percent(1 - member.loss_ratio)}"
        for member in members
        if member.loss_ratio < 1
    ]
    others = [member.name for member in members if not member.loss_ratio < 1]
    text = f"{len(better)} of {len(members)} members have a validation loss below the unigram loss"
    text += f": {', '.join(better)}." if better else "."
    if others:
        text += f" Not below the unigram loss: {', '.join(others)}."
    return (
        f"{text} Losses of different objectives measure different tasks and are not compared with "
        "each other."
    )


def _above(interval: Interval, other: Interval) -> bool:
    return interval[0] > other[1]


Ranking = Sequence[tuple[str, Score, Interval]]
"""Members that have an interval, the best first: name, score, interval of the score."""


def ranked(members: Sequence[Member], measure: MeasureRecord) -> Ranking:
    """Return the members whose score of a measure has an interval, the best first."""
    found = [
        (member.name, score, score.interval)
        for member in members
        if (score := member.scores.get(measure.name)) and score.interval
    ]
    return sorted(found, key=lambda entry: entry[1].value, reverse=measure.better == "higher")


def _read_best(measure: MeasureRecord, ranking: Ranking) -> str:
    """Return whose score is best, and whether its interval is apart from the next member's."""
    end, side = ("highest", "above") if measure.better == "higher" else ("lowest", "below")
    best, score, interval = ranking[0]
    text = f"{measure.title} is {end} for {best}: {score_text(score, measure.unit)}"
    if len(ranking) == 1:
        return f"{text}."
    second, next_score, other = ranking[1]
    value = score_text(next_score, measure.unit)
    apart = _above(interval, other) if measure.better == "higher" else _above(other, interval)
    if apart:
        return f"{text}; its interval is {side} that of the next member, {second}: {value}."
    return (
        f"{text}; its interval overlaps that of the next member, {second}: {value}, so this "
        "measure shows no clear difference between the two."
    )


def _read_against(ranking: Ranking, what: str, other: Interval) -> str:
    """Return whose intervals are above, overlap or are below another interval."""
    groups: dict[str, list[str]] = {"above": [], "overlapping": [], "below": []}
    for name, _, interval in ranking:
        if _above(interval, other):
            groups["above"].append(name)
        elif _above(other, interval):
            groups["below"].append(name)
        else:
            groups["overlapping"].append(name)
    parts = [f"{place} for {', '.join(names)}" for place, names in groups.items() if names]
    return f"Intervals relative to {what}: {'; '.join(parts)}."


def _read_measure(measure: MeasureRecord, ranking: Ranking) -> list[str]:
    """Return who is best, and how all compare with the baselines and the untrained trunk."""
    sentences = [_read_best(measure, ranking)]
    for name, value in measure.baselines.items():
        what = f"the {name}, {in_unit(value, measure.unit)}"
        sentences.append(_read_against(ranking, what, (value, value)))
    untrained = measure.untrained
    if untrained is not None and untrained.interval is not None:
        what = f"the untrained trunk, {score_text(untrained, measure.unit)}"
        sentences.append(_read_against(ranking, what, untrained.interval))
    return sentences


def summarize(results: Results) -> str:
    """Return in words what the numbers show, with no claim beyond the intervals."""
    sentences = [_read_losses(results.members)]
    rankings = [(measure, ranked(results.members, measure)) for measure in results.measures]
    for measure, ranking in rankings:
        if ranking:
            sentences += _read_measure(measure, ranking)
    if not any(ranking for _, ranking in rankings):
        sentences.append("No measure has an interval, so the members cannot be ranked.")
    sentences.append(
        f"Every member is one run with seed {results.seed}. The variation between seeds was not "
        "measured."
    )
    return " ".join(sentences)
