"""Which checkpoints are kept, for any policy and any scores."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from megapt.checkpoint.keeping import kept
from megapt.config import CheckpointConfig

scores_of_steps = st.dictionaries(
    st.integers(1, 60), st.none() | st.floats(-2, 2), min_size=1, max_size=20
)
policies = st.builds(
    CheckpointConfig,
    keep_last=st.integers(1, 5),
    keep_every=st.integers(0, 12),
    keep_best=st.integers(0, 4),
)


@given(scores_of_steps, policies)
def test_a_step_is_kept_for_each_reason_that_holds_and_for_no_other(
    scores: dict[int, float | None], policy: CheckpointConfig
) -> None:
    found = kept(scores, policy)
    for step, score in scores.items():
        reasons = []
        if sum(other > step for other in scores) < policy.keep_last:
            reasons.append("last")
        if policy.keep_every and step % policy.keep_every == 0:
            reasons.append("every")
        if score is not None:
            better = [
                other
                for other, value in scores.items()
                if value is not None and (value, other) < (score, step)
            ]
            if len(better) < policy.keep_best:
                reasons.append("best")
        assert found.get(step, []) == reasons


@given(scores_of_steps, policies, st.integers(61, 99), st.none() | st.floats(-2, 2))
def test_removing_as_one_goes_is_removing_at_the_end(
    scores: dict[int, float | None],
    policy: CheckpointConfig,
    following: int,
    score: float | None,
) -> None:
    """What was removed before would not be kept now."""
    at_once = kept({**scores, following: score}, policy)
    left = {step: scores[step] for step in kept(scores, policy)}
    assert kept({**left, following: score}, policy).keys() == at_once.keys()
