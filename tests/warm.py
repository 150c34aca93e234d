"""Imports all that a rank needs, once, in the process that the ranks are forked from.

Nothing here computes with torch or joins a process group: a child could not do so again. What the
first `deepspeed.initialize` imports unasked (some 1400 modules) a child finds out.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from contextlib import suppress

import pytest as pytest
import torch

from megapt.distributed.start import import_deepspeed, start_ranks
from megapt.evaluation.measures import MEASURES
from megapt.objectives import OBJECTIVES


def _modules_of_an_engine() -> list[str]:
    before = set(sys.modules)
    start_ranks()
    model = torch.nn.Linear(4, 4)
    for stage in (0, 3):
        engine, *_ = import_deepspeed().initialize(
            model=model,
            optimizer=torch.optim.AdamW(model.parameters()),
            config={"train_batch_size": 1, "zero_optimization": {"stage": stage}},
            dist_init_required=False,
        )
        loss = engine(torch.zeros(1, 4)).sum()
        engine.backward(loss)
        engine.step()
    return [name for name in sys.modules if name not in before]


def _ask_a_child() -> list[str]:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException), os.fdopen(write, "w") as answer:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            json.dump(_modules_of_an_engine(), answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else []


USED = (
    "hypothesis",
    "megapt.comparison.compare",
    "megapt.comparison.report",
    "megapt.evaluation",
    "megapt.planning",
    "megapt.training.launch",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "tests.corpora",
    "torch.utils.tensorboard",
)
"""What the test modules import, which a rank imports with its function, or a run at its start."""

import_deepspeed()
len(OBJECTIVES), len(MEASURES)  # imports them
for module in USED:
    importlib.import_module(module)
for module in _ask_a_child():
    with suppress(Exception):
        importlib.import_module(module)
# A collection in a rank, such as ZeRO 3 asks for, need not walk through all this again.
gc.collect()
gc.freeze()
