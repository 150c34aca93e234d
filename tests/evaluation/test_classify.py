"""Classification by a run's own head."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from megapt.errors import ConfigError
from megapt.evaluation import LoadedRun, classify

Overfitted = Callable[[str], LoadedRun]


def test_a_text_does_not_depend_on_the_others(overfitted: Overfitted) -> None:
    run = overfitted("msc")
    texts = ["The old ship", "渔船在港口", "", "A plough over the old meadow. " * 30] * 12
    together = classify(run, texts)
    assert len(together) == len(texts)
    for text, shares in zip(texts[:4], together[-4:], strict=True):
        [alone] = classify(run, [text])
        assert shares == pytest.approx(alone, abs=1e-5)


def test_a_long_text_is_cut_at_its_end(overfitted: Overfitted) -> None:
    run = overfitted("msc")
    long = "A plough over the old meadow. " * 30
    start = run.tokenizer.decode(run.tokenizer.encode(long)[: run.longest_text])
    assert classify(run, [long]) == classify(run, [start])


def test_no_texts_no_classes(overfitted: Overfitted) -> None:
    assert classify(overfitted("msc"), []) == []


@pytest.mark.parametrize("objective", ["arlm", "mlm", "nsp"])
def test_a_run_without_classes_says_so(overfitted: Overfitted, objective: str) -> None:
    run = overfitted(objective)
    with pytest.raises(ConfigError) as raised:
        classify(run, ["The old ship"])
    message = str(raised.value)
    assert message.startswith(f"{run.folder}: was trained with '{objective}'")
    assert "msc" in message
    assert "\n" not in message
