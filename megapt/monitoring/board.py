"""The records of a run as TensorBoard shows them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from megapt.checkpoint.run_folder import flatten
from megapt.config import RunConfig
from megapt.monitoring.metrics import Metrics, numbers

log = logging.getLogger("megapt.monitoring")

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


class _Nothing:
    """Takes whatever is written, in the place of a writer that cannot."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


class Board:
    """Writes what TensorBoard shows.

    A number NAME of the split "train" has the tag `train/NAME`; one in a section of a record, such
    as `clock`, has the tag `SECTION/NAME`, so that TensorBoard shows each section by itself.

    Args:
        folder: for its files.
        resume_step: what is there of later steps is dropped.
    """

    def __init__(self, folder: Path, resume_step: int) -> None:
        # Half a second, which only the rank that writes has to wait for.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1)
        self._lost = False

    def describe(self, config: RunConfig) -> None:
        """Write the hyperparameters, beside which TensorBoard shows the last losses."""
        from torch.utils.tensorboard.summary import hparams

        shown = dict.fromkeys(("train/loss", "valid/loss"), 0.0)
        summaries = hparams(hyperparameters(config), shown)  # type: ignore[no-untyped-call]
        # `SummaryWriter.add_hparams` would begin another run, in a folder of its own.
        for summary in summaries:
            self._files().add_summary(summary)

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """Give TensorBoard up if its files cannot be written: the training does not need it."""
        try:
            yield _Nothing() if self._lost else self._writer
        except OSError as error:
            self._lost = True
            log.warning("TensorBoard shows no more of this run: %s", error.strerror or error)

    def _files(self) -> Any:
        return self._writer._get_file_writer()  # type: ignore[no-untyped-call]

    def scalars(self, split: str, step: int, values: Metrics) -> None:
        """Show the numbers of a record."""
        with self._writing() as writer:
            for name, value in values.items():
                if isinstance(value, Mapping):
                    for inner, number in numbers(value):
                        # Validation has seconds of its own.
                        section = name if split == "train" else f"{split}/{name}"
                        writer.add_scalar(f"{section}/{inner}", number, step)
                elif isinstance(value, int | float):
                    writer.add_scalar(f"{split}/{name}", value, step)

    def texts(self, step: int, texts: Sequence[str]) -> None:
        """Show what the model wrote, word for word."""
        with self._writing() as writer:
            for number, text in enumerate(texts, start=1):
                # Indented, Markdown leaves it as it is.
                shown = "\n".join(f"    {line}" for line in text.splitlines())
                writer.add_text(f"samples/{number}", shown, step)

    def histogram(self, name: str, weights: Tensor, step: int) -> None:
        """Show how the weights of one parameter are spread."""
        with self._writing() as writer:
            writer.add_histogram(f"weights/{name}", weights.detach().float().cpu(), step)

    def close(self) -> None:
        """Flush and close."""
        with self._writing() as writer:
            writer.close()
