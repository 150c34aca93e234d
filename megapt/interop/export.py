"""The command `megapt export`: writes a run in the format of another tool, atomically."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from data_prep.files import sync
from megapt.config import Origins
from megapt.errors import ConfigError
from megapt.evaluation import load_run
from megapt.interop.exporters.base import Exporter
from megapt.registry import Registry

EXPORTERS = Registry("export format", Exporter, "megapt.interop.exporters", "megapt.exporters")  # type: ignore[type-abstract]


def export_run(folder: str, name: str, file: str | None, output: str) -> None:
    """Write the newest checkpoint of a run to a new folder.

    Args:
        folder: folder of the run.
        name: name of the format.
        file: Python file that defines a custom format; None for a registered format.
        output: folder to write; it must not exist, or be empty.

    Raises:
        ConfigError: for an unknown format, a run that does not fit it, or an existing output.
        DamagedError: if a file of the run is missing or corrupt.
    """
    exporter = EXPORTERS.find(name, file, Origins(), ("--to", "--file"))()
    place = Path(output).resolve()
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise ConfigError(f"{place}: already exists; choose another --output")
    run = load_run(folder)
    if problem := exporter.problem(run):
        raise ConfigError(f"{folder}: does not fit '{name}': {problem}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as temporary:
        written = Path(temporary) / place.name
        written.mkdir()
        exporter.export(run, written)
        for path in [*written.rglob("*"), written]:
            sync(path)
        written.replace(place)
        sync(place.parent)
