"""The cases of `training.py` that train megapt's model.

    python -m benchmarks.training_here CASE --objective mlm --data CORPUS --flat FOLDER

`turns.py` describes how they run.
"""

import argparse
import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from benchmarks.turns import (
    BETAS,
    CLIP,
    DECAY,
    ENDLESS,
    LEARNING_RATE,
    LOG_EVERY,
    Turns,
    autocast,
    bare_loop,
    device,
    main,
)
from megapt.config import Origins, RunConfig
from megapt.data import BatchMaker, Corpus, Loader
from megapt.data.schedules import training_stream
from megapt.distributed.engine import Engine
from megapt.distributed.start import start_ranks
from megapt.model import build_model
from megapt.model.attention import find_backend
from megapt.objectives import Context, build_objective
from megapt.training.prepared import prepare
from megapt.training.trainer import Trainer

KEPT_BATCHES = 64


def run_config(options: argparse.Namespace, output: str) -> RunConfig:
    """Return a run with the shape of the peers' models: GPT-2 without biases, or BERT."""
    decoder = options.objective == "arlm"
    model = {
        "num_layers": options.layers,
        "hidden_size": options.hidden,
        "num_heads": options.heads,
        "intermediate_size": 4 * options.hidden,
        "activation": "gelu",
        "norm": "layernorm",
        "norm_position": "pre" if decoder else "post",
        "positions": "learned",
        "bias": not decoder,
        "token_head": "linear" if decoder else "transform",
    }
    optimizer = {"lr": LEARNING_RATE, "weight_decay": DECAY, "max_grad_norm": CLIP}
    training = {
        "budget": {"amount": float(ENDLESS * options.batch * options.window)},
        "global_batch_size": options.batch,
        "micro_batch_size": options.batch,
        "precision": options.precision,
        "attention": options.attention,
        "validate_every": 0,
        "log_every": LOG_EVERY,
    }
    return RunConfig.model_validate(
        {
            "output": output,
            "data": {"corpus": str(options.data), "window": options.window},
            "model": model,
            "objective": {"name": options.objective},
            "optimizer": {**optimizer, "beta1": BETAS[0], "beta2": BETAS[1]},
            "training": training,
            "checkpoint": {"every": 0},
        }
    )


def bare(options: argparse.Namespace, turns: Turns) -> None:
    """Train the model in the bare loop on ready batches, without engine, loader and metrics."""
    config = run_config(options, "nowhere")
    corpus = Corpus(str(options.data))
    context = Context(corpus.vocabulary, options.window)
    objective = build_objective(config.objective, context, Origins())
    backend = find_backend(config, Origins())
    model = build_model(config, objective.heads, corpus.vocabulary.size, backend)
    maker = BatchMaker(training_stream(corpus, config), objective, corpus.vocabulary.pad, seed=0)
    with contextlib.closing(Loader(maker, global_batch_size=options.batch).iterate()) as steps:
        batches = [batch for _, [batch] in itertools.islice(steps, KEPT_BATCHES)]

    def losses() -> Iterator[tuple[Tensor, int]]:
        for batch in itertools.cycle(batches):
            factors = {head: 1 / max(asked.size, 1) for head, asked in batch.targets.items()}
            with autocast(options):
                loss = model(batch.to(device()), factors).loss
            yield loss, batch.counts.raw_tokens

    bare_loop(model.to(device()), losses(), turns)


def megapt(options: argparse.Namespace, turns: Turns) -> None:
    """Train with the complete trainer: loader, engine and metrics with their defaults."""
    step = Engine.step

    def timed(engine: Engine, *args: Any, **kwargs: Any) -> Any:
        result = step(engine, *args, **kwargs)
        # All windows have this number of text tokens, except the last one of an epoch.
        turns.updated(options.batch * options.window)
        return result

    Engine.step = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        config = run_config(options, f"{folder}/run")
        Trainer(prepare(config, start_ranks(), Origins())).train()


if __name__ == "__main__":
    main((__doc__ or "").split("\n")[0], {"bare": bare, "megapt": megapt})
