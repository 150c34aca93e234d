"""The command `megapt`: training, comparison, and use of trained runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from megapt.cli import checkpoint
from megapt.cli.command import (
    ConfigFile,
    Json,
    Labels,
    Overrides,
    Run,
    Vocabulary,
    add_command,
)

app = typer.Typer(
    help="Pretrain Transformers with any objective, and compare objectives on equal terms.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(checkpoint.app, name="checkpoint")


@add_command(app, "train")
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, compute two updates, and write nothing."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result of a dry run as JSON.")
    ] = False,
) -> None:
    """Train one run here (on many ranks: deepspeed --module megapt.training CONFIG …)."""
    if dry_run:
        from megapt.planning.command import rehearse_run

        rehearse_run(config, overrides or [], as_json=as_json)
        return
    from megapt.resilience.stopping import record_early_requests

    record_early_requests()
    from megapt.training.launch import train

    train(config, overrides or [])


@add_command(app, "compare")
def compare(config: ConfigFile, overrides: Overrides = None) -> None:
    """Compare several objectives (on many ranks: deepspeed --module megapt.comparison CONFIG …)."""
    from megapt.resilience.stopping import record_early_requests

    record_early_requests()
    from megapt.comparison.launch import compare

    compare(config, overrides or [])


@add_command(app, "show")
def show(
    config: ConfigFile,
    overrides: Overrides = None,
    window: Annotated[int, typer.Option(min=0, help="Number of the window in the run.")] = 0,
    every: Annotated[
        bool, typer.Option("--all", help="Show every objective, as its preset defines it.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write an HTML page to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Print a window of text and the examples that the objective makes of it."""
    from megapt.evaluation.show import show_window

    show_window(config, overrides or [], window, every=every, as_json=as_json, html=html)


@add_command(app, "plan")
def plan(
    config: ConfigFile,
    cluster: Annotated[
        str, typer.Option(help="YAML file with a section `device`; see configs/cluster/.")
    ],
    overrides: Overrides = None,
    vocabulary: Vocabulary = None,
    labels: Labels = 0,
    tokens_per_second: Annotated[
        float | None, typer.Option(min=0, help="Measured raw tokens per second of one device.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate memory, time and cost of a run on a cluster, and recommend settings."""
    from megapt.planning.command import plan_run

    plan_run(
        config,
        overrides or [],
        cluster,
        vocabulary=vocabulary,
        labels=labels,
        speed=tokens_per_second or None,
        as_json=as_json,
    )


@add_command(app, "status")
def status(
    folder: Annotated[str, typer.Argument(help="Folder of a run or comparison.", metavar="RUN")],
    as_json: Json = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Print it again every five seconds, until all runs are finished."
        ),
    ] = False,
) -> None:
    """Print the status of a run: speed, losses, checkpoints, and faults."""
    from megapt.monitoring.status_view import show_status

    show_status(folder, as_json=as_json, watch=watch)


@add_command(app, "eval")
def evaluate(
    run: Run,
    windows: Annotated[int, typer.Option(min=1, help="Number of validation windows.")] = 512,
    corpus: Annotated[str | None, typer.Option(help="Corpus folder, if it has moved.")] = None,
    as_json: Json = False,
) -> None:
    """Score a run on the validation set, next to the unigram baseline."""
    from megapt.evaluation.evaluate import evaluate_run

    scores = evaluate_run(run, windows, corpus)
    if as_json:
        print(json.dumps(scores))
        return
    for name in scores["model"]:
        print(f"{name:20} {scores['model'][name]:10.4f}   unigram {scores['unigram'][name]:10.4f}")


@add_command(app, "generate")
def generate(
    run: Run,
    prompt: Annotated[list[str], typer.Option(help="Text to continue or to rewrite.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of new tokens.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, max=100, help="0: greedy decoding.")] = 0.8,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Probability mass of nucleus sampling.")
    ] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampling.")] = 0,
    as_json: Json = False,
) -> None:
    """Continue the prompt, or rewrite a text with masks (mgm, infilling)."""
    from megapt.evaluation import generate, load_run
    from megapt.evaluation.fill_mask import encode_masked

    loaded = load_run(run)
    prompts = [encode_masked(loaded.tokenizer, text) for text in prompt]
    written = generate(
        loaded, prompts, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    texts = [loaded.tokenizer.decode(tokens) for tokens in written]
    _print(texts, as_json)


@add_command(app, "fill-mask")
def fill_mask(
    run: Run,
    text: Annotated[str, typer.Argument(help='Text with masks: "The [MASK] of the union".')],
    top: Annotated[int, typer.Option(min=1, help="Candidates per mask.")] = 5,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rounds; each fills the most certain masks. Default: one round per mask.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fill the masks of a text (mlm, msc, bert, diffusion)."""
    from megapt.evaluation import fill_mask, load_run

    filling = fill_mask(load_run(run), text, top, rounds)
    if as_json:
        print(json.dumps(filling.__dict__, ensure_ascii=False))
        return
    for number, candidates in enumerate(filling.candidates, start=1):
        shown = "  ".join(f"{piece} {share:.3f}" for piece, share in candidates)
        print(f"[MASK] {number}: {shown}")
    print(filling.text)


@add_command(app, "classify")
def classify(
    run: Run,
    texts: Annotated[list[str], typer.Argument(help="Texts to classify.")],
    as_json: Json = False,
) -> None:
    """Classify texts with the class head of the run (msc)."""
    from megapt.evaluation import classify, load_run

    results = classify(load_run(run), texts)
    if as_json:
        print(json.dumps(results, ensure_ascii=False))
        return
    for result in results:
        print("  ".join(f"{label} {share:.3f}" for label, share in result.items()))


@add_command(app, "export")
def export(
    run: Run,
    to: Annotated[str, typer.Option(help="Name of the format.", metavar="NAME")],
    output: Annotated[str, typer.Option(help="Folder to write.", metavar="DIR")],
    file: Annotated[
        str | None, typer.Option(help="Python file that defines a custom format.")
    ] = None,
) -> None:
    """Write a run in the format of another tool."""
    from megapt.interop import export_run

    export_run(run, to, file, output)
    print(output)


def _print(texts: list[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(texts, ensure_ascii=False))
    else:
        print("\n\n".join(texts))


def main() -> None:
    """Run the command."""
    app()
