"""The records of a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from megapt.checkpoint.run_folder import flatten
from megapt.config import RunConfig
from megapt.monitoring.metrics import Metrics, numbers
from megapt.monitoring.trackers.base import Start, Tracker

_COMPARED = ("seed", "objective", "model", "loss", "optimizer", "schedule", "training", "parallel")
"""Sections of the configuration that TensorBoard shows as hyperparameters."""


def hyperparameters(config: RunConfig) -> dict[str, bool | float | str]:
    """Return dotted path -> value of the hyperparameters; lists become text."""
    values = config.model_dump(include=set(_COMPARED))
    values["window"] = config.data.window
    return {
        path: value if isinstance(value, bool | int | float | str) else str(value)
        for path, value in flatten(values).items()
        if value is not None
    }


class TensorBoard(Tracker):
    """Writes event files of TensorBoard, and stops after the first failed write.

    A number NAME of the split "train" has the tag `train/NAME`. A number in a section of a record,
    such as `clock`, has the tag `SECTION/NAME`, so that TensorBoard groups each section.
    """

    name = "tensorboard"

    def __init__(self, own: Any, start: Start) -> None:
        # These imports take half a second; only the rank that writes needs them.
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._writer = SummaryWriter(str(start.folder / "tensorboard"), purge_step=start.step + 1)
        self._failed = False
        # TensorBoard shows the last losses next to the hyperparameters.
        shown = dict.fromkeys(("train/loss", "valid/loss"), 0.0)
        summaries = hparams(hyperparameters(start.config), shown)  # type: ignore[no-untyped-call]
        # `SummaryWriter.add_hparams` would start another run in a separate folder.
        file: Any = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in summaries:
            file.add_summary(summary)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Note a failed write. It has ended the writer's thread, so later writes cannot work."""
        try:
            yield
        except OSError:
            self._failed = True
            raise

    def record(self, split: str, step: int, values: Metrics) -> None:
        """Write the numbers of a record, and its samples as text."""
        if self._failed:
            return
        with self._writing():
            for name, value in values.items():
                if isinstance(value, Mapping):
                    for inner, number in numbers(value):
                        # Validation records have a `clock` too.
                        section = name if split == "train" else f"{split}/{name}"
                        self._writer.add_scalar(f"{section}/{inner}", number, step)
                elif isinstance(value, int | float):
                    self._writer.add_scalar(f"{split}/{name}", value, step)
            for number, text in enumerate(values.get("samples", []), start=1):
                # Markdown shows indented text unchanged.
                lines = "\n".join(f"    {line}" for line in text.splitlines())
                self._writer.add_text(f"samples/{number}", lines, step)

    def histogram(self, step: int, name: str, weights: Tensor) -> None:
        """Write a histogram of the weights of one parameter."""
        if not self._failed:
            with self._writing():
                self._writer.add_histogram(f"weights/{name}", weights, step)

    def close(self) -> None:
        """Flush and close the files."""
        if not self._failed:
            self._writer.close()
