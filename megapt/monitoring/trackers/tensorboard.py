"""The records of a run as TensorBoard shows them."""

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
"""Sections of the configuration by which TensorBoard tells runs apart."""


def hyperparameters(config: RunConfig) -> dict[str, bool | float | str]:
    """Return dotted path -> value of what runs differ in; a list is written out as text."""
    values = config.model_dump(include=set(_COMPARED))
    values["window"] = config.data.window
    return {
        path: value if isinstance(value, bool | int | float | str) else str(value)
        for path, value in flatten(values).items()
        if value is not None
    }


class TensorBoard(Tracker):
    """Writes what TensorBoard shows, and gives up once its files cannot be written.

    A number NAME of the split "train" has the tag `train/NAME`; one in a section of a record, such
    as `clock`, has the tag `SECTION/NAME`, so that TensorBoard shows each section by itself.
    """

    name = "tensorboard"

    def __init__(self, own: Any, start: Start) -> None:
        # Half a second, which only the rank that writes has to wait for.
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._writer = SummaryWriter(str(start.folder / "tensorboard"), purge_step=start.step + 1)
        self._lost = False
        # Beside the hyperparameters it shows the last losses.
        shown = dict.fromkeys(("train/loss", "valid/loss"), 0.0)
        summaries = hparams(hyperparameters(start.config), shown)  # type: ignore[no-untyped-call]
        # `SummaryWriter.add_hparams` would begin another run, in a folder of its own.
        file: Any = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in summaries:
            file.add_summary(summary)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Note that a file cannot be written: its thread is gone then, and nothing can be later."""
        try:
            yield
        except OSError:
            self._lost = True
            raise

    def record(self, split: str, step: int, values: Metrics) -> None:
        """Show the numbers of a record, and its samples word for word."""
        if self._lost:
            return
        with self._writing():
            for name, value in values.items():
                if isinstance(value, Mapping):
                    for inner, number in numbers(value):
                        # Validation has seconds of its own.
                        section = name if split == "train" else f"{split}/{name}"
                        self._writer.add_scalar(f"{section}/{inner}", number, step)
                elif isinstance(value, int | float):
                    self._writer.add_scalar(f"{split}/{name}", value, step)
            for number, text in enumerate(values.get("samples", []), start=1):
                # Indented, Markdown leaves it as it is.
                lines = "\n".join(f"    {line}" for line in text.splitlines())
                self._writer.add_text(f"samples/{number}", lines, step)

    def histogram(self, step: int, name: str, weights: Tensor) -> None:
        """Show how the weights of one parameter are spread."""
        if not self._lost:
            with self._writing():
                self._writer.add_histogram(f"weights/{name}", weights, step)

    def close(self) -> None:
        """Flush and close."""
        if not self._lost:
            self._writer.close()
