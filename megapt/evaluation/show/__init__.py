"""Display of the examples that objectives make from a window: as lines, JSON or an HTML page."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from megapt.checkpoint.run_folder import objective_context
from megapt.config import RunConfig, load_config
from megapt.data import BatchMaker, open_corpora
from megapt.data.schedules import batch_schedule, length_schedule, training_stream
from megapt.errors import ConfigError
from megapt.evaluation.show.describe import Refused, Shown, describe_window
from megapt.evaluation.show.lines import write
from megapt.evaluation.show.page import render
from megapt.files import write_text
from megapt.objectives import OBJECTIVES, Objective, build_objective

__all__ = ["describe_window", "render", "show_window", "write"]


def _check_page(file: Path) -> None:
    if file.is_dir():
        raise ConfigError(f"command line: --html {file}: is a folder; give the name of a file")
    if not file.parent.is_dir():
        raise ConfigError(f"command line: --html {file}: there is no folder {file.parent}")


def _write_page(file: Path, page: str) -> None:
    try:
        write_text(file, page)
    except OSError as error:  # Its file name is that of a temporary file.
        raise ConfigError(f"command line: --html {file}: {error.strerror}") from None


def _escape_unencodable_output() -> bool:
    r"""Let standard output take all characters; return whether its encoding has them all.

    Characters that the encoding lacks are written as escapes, such as \u2581 in ASCII.
    """
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return True
    sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout.encoding.lower().startswith("utf")


def _names(overrides: Sequence[str]) -> list[str]:
    """Return the names of all objectives; refuse settings of a single objective."""
    for override in overrides:
        if override.startswith(("objective=", "objective.")):
            raise ConfigError(
                f"command line: '{override}' cannot be combined with --all, which shows every "
                f"objective with its preset; remove one of them"
            )
    return sorted(OBJECTIVES)


def show_window(
    config_file: str,
    overrides: Sequence[str],
    index: int,
    *,
    every: bool = False,
    as_json: bool = False,
    html: Path | None = None,
) -> None:
    """Show window `index` of a configuration's corpus, and the examples of its objective.

    The output has the raw text, the input pieces, the targets of each head, the segments and
    positions in runs, and what attention allows. A target is position:input→target, so that a
    masked token reads [MASK]→word; many targets in a row are first-last→targets. On a terminal
    the output is colored.

    Args:
        config_file: configuration of a run.
        overrides: words key=value.
        index: number of the window in an epoch.
        every: show every objective with its preset on the same window; an objective that cannot
            be used on this corpus is listed with the reason.
        as_json: print JSON: an object, or a list with `every`.
        html: write a page to this file; without `as_json`, only its name is printed.

    Raises:
        ConfigError: for wrong settings, a window that does not exist, or a page that cannot be
            written.
        MegaptError: if the corpus cannot be read; see `open_corpora`.
    """
    config, origins = load_config(RunConfig, config_file, overrides)
    names = _names(overrides) if every else []
    if html is not None:
        _check_page(html)
    corpus = open_corpora(config.data)
    stream = training_stream(corpus, config)
    context = objective_context(corpus, config)
    if index >= stream.count:
        raise ConfigError(f"command line: --window {index}: windows are 0 to {stream.count - 1}")

    def shown(objective: Objective) -> Shown:
        pad, batches = corpus.vocabulary.pad, batch_schedule(config, origins)
        lengths = length_schedule(config, origins)
        maker = BatchMaker(
            stream, objective, pad, config.seed, global_batch_size=batches, lengths=lengths
        )
        return describe_window(maker, objective, corpus, index)

    results: list[Shown | Refused] = []
    if not every:
        results.append(shown(build_objective(config.objective, context, origins)))
    for name in names:
        try:
            preset, places = load_config(RunConfig, config_file, [*overrides, f"objective={name}"])
            objective = build_objective(preset.objective, context, places)
        except ConfigError as error:
            results.append({"objective": name, "refused": str(error)})
        else:
            results.append(shown(objective))
    if html is not None:
        _write_page(html, render(results, config_file))
    unicode = _escape_unencodable_output()
    if as_json:
        print(json.dumps(results if every else results[0], ensure_ascii=not unicode))
    elif html is not None:
        print(f"page: {html}")
    else:
        write(results, Console(highlight=False))
