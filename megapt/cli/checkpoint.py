"""The commands `megapt checkpoint …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from megapt.cli.command import Json, Run, add_command

app = typer.Typer(
    help="Inspect the checkpoints of a run, and write other files from them.",
    no_args_is_help=True,
    add_completion=False,
)

Step = Annotated[
    int | None, typer.Argument(min=1, help="Step of the checkpoint; default: the newest.")
]
Output = Annotated[Path, typer.Option(help="File or folder to write; it must not exist.")]


@add_command(app, "ls")
def ls(run: Run, as_json: Json = False) -> None:
    """List the checkpoints: step, date, size, ranks, score, why each is kept, corrupt ones."""
    from megapt.checkpoint.commands import list_checkpoints

    rows = list_checkpoints(run)
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        print(f"{run}: no checkpoint yet")
    for row in rows:
        print(_line(row))


def _line(row: dict[str, Any]) -> str:
    if row["damage"]:
        return f"{row['step']:>10,}  corrupt: {row['damage'][0]}"
    score = "-" if row["score"] is None else f"{row['score']:.4f}"
    return (
        f"{row['step']:>10,}  {row['date'][:16].replace('T', ' ')}  "
        f"{row['bytes'] / 1e6:>10,.1f} MB  ranks {row['ranks']}  zero {row['zero_stage']}  "
        f"{row['precision']}  score {score:>8}  kept: {', '.join(row['kept']) or '-'}"
    )


@add_command(app, "verify")
def verify(
    run: Run,
    step: Annotated[
        int | None, typer.Argument(min=1, help="Step of the checkpoint; default: all.")
    ] = None,
) -> None:
    """Hash every file; exit with code 1 if one is corrupt."""
    from megapt.checkpoint.commands import verify

    found = verify(run, step)
    for each, problems in found.items():
        for line in problems or ["intact"]:
            print(f"step {each}: {line}")
    if any(found.values()):
        raise typer.Exit(1)


@add_command(app, "convert")
def convert(run: Run, output: Output, step: Step = None) -> None:
    """Write a checkpoint in DeepSpeed's universal format, for other DeepSpeed jobs than megapt."""
    from megapt.checkpoint.commands import convert

    print(f"{output}: step {convert(run, step, output)}")


@add_command(app, "consolidate")
def consolidate(
    run: Run,
    output: Output,
    step: Step = None,
    dtype: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Data type of the weights.")
    ] = "fp32",
) -> None:
    """Write the weights of a checkpoint, or their moving average, to one safetensors file."""
    from megapt.checkpoint.commands import consolidate

    print(f"{output}: step {consolidate(run, step, output, dtype)}, {dtype}")


@add_command(app, "average")
def average(
    run: Run,
    output: Output,
    steps: Annotated[
        list[int] | None, typer.Argument(min=1, help="Steps of the checkpoints.")
    ] = None,
    last: Annotated[
        int | None, typer.Option(min=2, help="Number of newest checkpoints, instead of steps.")
    ] = None,
) -> None:
    """Write the mean of the weights of several checkpoints to one safetensors file."""
    from megapt.checkpoint.commands import average

    chosen = average(run, steps or [], last, output)
    print(f"{output}: mean of the steps {', '.join(map(str, chosen))}")
