"""The command `megapt`: train, compare, and use what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

app = typer.Typer(
    help="Pretrain Transformers under any objective, and compare the objectives honestly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[str, typer.Argument(help="YAML file; see configs/.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to change.", metavar="[key=value …]")
]
Run = Annotated[str, typer.Argument(help="Folder of a trained run.", metavar="RUN")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Command = TypeVar("Command", bound=Callable[..., None])


def _command(name: str) -> Callable[[Command], Command]:
    """Add a command whose errors end in one line and an exit code.

    Commands import what they need themselves: torch takes seconds to load, `--help` should not.
    """

    def add(function: Command) -> Command:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            from megapt.training.launch import guarded, leave

            leave(guarded(lambda: function(*args, **kwargs)))

        app.command(name)(run)
        return function

    return add


@_command("train")
def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train one run in this process. Over many: deepspeed --module megapt.training CONFIG …"""
    from megapt.training.launch import train

    train(config, overrides or [])


@_command("compare")
def compare(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train and measure several objectives. Over many: deepspeed --module megapt.comparison …"""
    from megapt.comparison.launch import compare

    compare(config, overrides or [])


@_command("show")
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
    """Print a window of text and what the objective makes of it."""
    from megapt.evaluation.show import show_window

    show_window(config, overrides or [], window, every=every, as_json=as_json, html=html)


@_command("status")
def status(
    folder: Annotated[str, typer.Argument(help="Folder of a run or comparison.", metavar="RUN")],
    as_json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Print it again every five seconds, until the end.")
    ] = False,
) -> None:
    """Say how a run stands: its speed, losses, checkpoints, and what went wrong."""
    from megapt.training.monitoring.status_view import show_status

    show_status(folder, as_json=as_json, watch=watch)


@_command("eval")
def evaluate(
    run: Run,
    windows: Annotated[int, typer.Option(min=1, help="Held-out windows.")] = 512,
    corpus: Annotated[
        str | None, typer.Option(help="Corpus folder, if it is not where it was.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a run on held-out text, beside the unigram baseline."""
    from megapt.evaluation.heldout import evaluate_run

    scores = evaluate_run(run, windows, corpus)
    if as_json:
        print(json.dumps(scores))
        return
    for name in scores["model"]:
        print(f"{name:20} {scores['model'][name]:10.4f}   unigram {scores['unigram'][name]:10.4f}")


@_command("generate")
def generate(
    run: Run,
    prompt: Annotated[list[str], typer.Option(help="Text to continue, or to rewrite.")],
    max_tokens: Annotated[int, typer.Option(min=1)] = 64,
    temperature: Annotated[float, typer.Option(min=0, max=100, help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 0.95,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Continue the prompt, or write the whole text from its masked form (mgm, infilling)."""
    from megapt.evaluation import generate, load_run
    from megapt.evaluation.fill_mask import encode_masked

    loaded = load_run(run)
    prompts = [encode_masked(loaded.tokenizer, text) for text in prompt]
    written = generate(
        loaded, prompts, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    texts = [loaded.tokenizer.decode(tokens) for tokens in written]
    _print(texts, as_json)


@_command("fill-mask")
def fill_mask(
    run: Run,
    text: Annotated[str, typer.Argument(help='Text with masks: "The [MASK] of the union".')],
    top: Annotated[int, typer.Option(min=1, help="Candidates a mask.")] = 5,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rounds that fill the text, the surest masks first; default: one a mask."
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


@_command("classify")
def classify(
    run: Run,
    texts: Annotated[list[str], typer.Argument(help="Texts.")],
    as_json: Json = False,
) -> None:
    """Classify texts with the run's own class head (msc)."""
    from megapt.evaluation import classify, load_run

    results = classify(load_run(run), texts)
    if as_json:
        print(json.dumps(results, ensure_ascii=False))
        return
    for result in results:
        print("  ".join(f"{label} {share:.3f}" for label, share in result.items()))


def _print(texts: list[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(texts, ensure_ascii=False))
    else:
        print("\n\n".join(texts))


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
