"""The frame of a training loop of `training.py` in its own process: turns in, JSON out."""

import argparse
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LEARNING_RATE, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
LOG_EVERY = 10  # Updates, in every loop.
ENDLESS = 10**9  # Updates.


class Turn(NamedTuple):
    """The work of a loop in one turn."""

    tokens: int
    """Text tokens, without special tokens and padding."""
    updates: int
    """Number of updates."""
    seconds: float
    """Wall-clock seconds from the first to the last update."""
    cpu_seconds: float
    """Processor seconds of the process; more reliable than `seconds` on a busy machine."""


class Turns:
    """Stops a loop after an update until its next turn.

    Args:
        answers: file descriptor of the pipe to the process that assigns the turns.
    """

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._begin(0.0)

    def _begin(self, seconds: float) -> None:
        self._tokens = self._updates = 0
        self._began, self._began_cpu = time.perf_counter(), time.process_time()
        self._end = self._began + seconds

    def updated(self, tokens: int) -> None:
        """Count an update on `tokens` tokens of text; call this after each update.

        Raises:
            SystemExit: if there are no more turns.
        """
        self._tokens += tokens
        self._updates += 1
        if time.perf_counter() < self._end:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._began
        cpu_seconds = time.process_time() - self._began_cpu
        turn = Turn(self._tokens, self._updates, seconds, cpu_seconds)
        os.write(self._answers, f"{json.dumps(turn._asdict())}\n".encode())
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        self._begin(float(line))


def device() -> torch.device:
    """Return the GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(options: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    """Return the context that computes in bfloat16 if that is the precision."""
    return torch.autocast(device().type, torch.bfloat16, enabled=options.precision == "bf16")


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """Return fused AdamW, with weight decay for matrices only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1]},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, weight_decay=DECAY, fused=True)


def bare_loop(model: nn.Module, losses: Iterator[tuple[Tensor, int]], turns: Turns) -> None:
    """Train without an engine and without metrics, as nanoGPT does.

    Args:
        model: the model, on its device.
        losses: losses of successive batches, each with the batch's number of text tokens.
        turns: counts each update.
    """
    optimizer = adamw(model)
    for step in itertools.count(1):
        loss, tokens = next(losses)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % LOG_EVERY == 0:
            print(f"step {step}: loss {loss.item():.3f}")
        turns.updated(tokens)


Case = Callable[[argparse.Namespace, Turns], None]
"""Trains until the turns end."""


def shape_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all loops share."""
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--window", type=int, default=512, help="tokens of text per window")
    parser.add_argument("--batch", type=int, default=4, help="windows per update")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--attention", default="grouped", help="training.attention here")


def main(description: str, cases: Mapping[str, Case]) -> None:
    """Run one case. Its output goes to standard error."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("case", choices=cases)
    parser.add_argument("--objective", choices=["arlm", "mlm"], required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--flat", type=Path, required=True, help="its tokens, end to end")
    shape_options(parser)
    options = parser.parse_args()
    answers = os.dup(1)
    os.dup2(2, 1)
    cases[options.case](options, Turns(answers))
