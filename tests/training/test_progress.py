"""What is said of the progress of a run where there is no terminal."""

from __future__ import annotations

import pytest

from megapt.training.progress import TrainingProgress


@pytest.mark.parametrize(("share", "left"), [(0.25, False), (0.5, True)])
def test_the_time_left_is_told_once_there_was_progress(
    capsys: pytest.CaptureFixture[str], share: float, left: bool
) -> None:
    progress = TrainingProgress("run", shown=True)
    progress.begin(0.25)
    progress.update(share, 3, "loss 2.000")
    line = capsys.readouterr().err
    assert line.startswith(f"run: step 3  {share:6.1%}  loss 2.000")
    assert line.endswith(" s left\n") == left
    assert "nan" not in line
