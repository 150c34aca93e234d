"""Finds a checkpoint that is complete and intact."""

from __future__ import annotations

from pathlib import Path

from megapt.checkpoint.events import Events
from megapt.checkpoint.manifest import damage, read_manifest, restore_replaced
from megapt.checkpoint.remote import Copies
from megapt.checkpoint.state import Saved, checkpoint_path, read_state, steps_saved
from megapt.config import BranchConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError, DamagedError, MegaptError


class Finder:
    """Looks for checkpoints. Each file is hashed by one of the ranks.

    All ranks call the same methods in the same order, and get the same result.

    Args:
        folder: checkpoint folder of a run; it need not exist.
        ranks: ranks of the job.
        events: receives the checkpoints that are skipped.
        copies: copies to use if the folder has no intact checkpoint.
        run: digest of the run whose checkpoints are expected; empty for any run.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        events: Events,
        copies: Copies | None = None,
        run: str = "",
    ) -> None:
        self._folder = folder
        self._run = run
        self._ranks = ranks
        self._events = events
        self._copies = copies

    def newest(self, before: int | None = None, fetching: bool = True) -> Saved | None:
        """Return the newest intact checkpoint; None if there are no checkpoints.

        Args:
            before: consider only checkpoints of earlier steps than this.
            fetching: whether copies may be used.

        Raises:
            ConfigError: on all ranks, if another run or another version of megapt wrote one.
            DamagedError: on all ranks, if all checkpoints are corrupt.
            UnavailableError: on all ranks, if copies are needed and cannot be read.
        """
        if self._ranks.main:
            restore_replaced(self._folder)
        saved, problem = self._search(before)
        if self._copies is not None:
            self._check_copies(self._copies, needed=saved is None, fetching=fetching)
            if saved is None and fetching:
                self._fetch(self._copies)
                saved, problem = self._search(before)
        if saved is None and problem:
            raise DamagedError(
                f"{self._folder}: none of the checkpoints can be used ({problem}); restore one "
                f"from a copy, or remove the folder to start from scratch"
            )
        return saved

    def at(self, step: int) -> Saved:
        """Return the checkpoint of a step.

        Raises:
            DamagedError: on all ranks, if there is none, or it is corrupt.
            ConfigError: on all ranks, if another version of megapt wrote it.
        """
        path = checkpoint_path(self._folder, step)
        if problem := self._problem(path):
            raise DamagedError(f"{path}: {problem}")
        return self._saved(step)

    def _check_copies(self, copies: Copies, needed: bool, fetching: bool) -> None:
        """Refuse a location with copies that this run would overwrite.

        Args:
            copies: copies at the location.
            needed: whether a copy must be read. Otherwise the location may be unavailable.
            fetching: whether copies of this run may be used.

        Raises:
            ConfigError: on all ranks, if the copies are of another run or may not be used.
            MegaptError: on all ranks, if a copy must be read and cannot be.
        """
        with self._ranks.shared_errors():
            if not self._ranks.main:
                return
            try:
                owner = copies.owner()
            except MegaptError:
                if needed:
                    raise
                return
            if owner is None:
                return
            if self._run and owner != self._run:
                raise ConfigError(
                    f"checkpoint.copy_to: {copies.where} holds checkpoints of another run, or of "
                    f"this run with other settings; choose another location"
                )
            if not fetching:
                raise ConfigError(
                    f"checkpoint.copy_to: {copies.where} holds checkpoints of this run, and "
                    f"checkpoint.resume is 'never'; choose another location, or remove them"
                )

    def _search(self, before: int | None) -> tuple[Saved | None, str]:
        """Return the newest intact checkpoint, or None and the problem of the oldest one."""
        steps: list[int] = self._ranks.gather(steps_saved(self._folder))[0]
        steps = [step for step in steps if before is None or step < before]
        problem = ""
        for step in reversed(steps):
            path = checkpoint_path(self._folder, step)
            if not (problem := self._problem(path)):
                return self._saved(step), ""
            problem = f"{path}: {problem}"
            self._events.add(step, "damaged", f"{problem}; it is skipped")
        return None, problem

    def _fetch(self, copies: Copies) -> None:
        """Fetch the newest intact copy.

        Raises:
            MegaptError: on all ranks, if the location cannot be read; see `Copies.fetch`.
        """
        with self._ranks.shared_errors():
            skipped = copies.fetch(self._folder) if self._ranks.main else {}
        for step, problem in skipped.items():
            text = f"{copies.where}: step {step}: {problem}; it is skipped"
            self._events.add(step, "damaged", text)

    def _problem(self, path: Path) -> str:
        """Return the problem of a checkpoint, in one line, or nothing; the same on all ranks."""
        problems: list[str] = []
        with self._ranks.shared_errors():
            try:
                manifest = read_manifest(path)
                if self._run and manifest.run != self._run:
                    raise ConfigError(
                        f"{path}: is of another run, or of this run with other settings"
                    )
                problems = damage(path, manifest, self._ranks.rank, self._ranks.world)
            except ValueError as error:
                problems = [str(error)]
        gathered: list[list[str]] = self._ranks.gather(problems)
        found = list(dict.fromkeys(line for lines in gathered for line in lines))
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return found[0] + more if found else ""

    def _saved(self, step: int) -> Saved:
        path = checkpoint_path(self._folder, step)
        with self._ranks.shared_errors():
            state = read_state(path)
        return Saved(step, path, state)


def branch_start(branch: BranchConfig, ranks: Ranks) -> Saved:
    """Return the checkpoint of another run from which a branch starts.

    Args:
        branch: names the run and, if it is not the newest, the step.
        ranks: ranks of the job.

    Raises:
        ConfigError: on all ranks, if there is none.
        DamagedError: on all ranks, if it is corrupt.
    """
    run = Path(branch.run)
    exists, steps = ranks.gather((run.is_dir(), steps_saved(run / "checkpoints")))[0]
    if not exists:
        raise ConfigError(f"branch.run: there is no folder {run}")
    finder = Finder(run / "checkpoints", ranks, Events(ranks.main))
    saved = None
    if branch.step is None:
        saved = finder.newest()
    elif branch.step in steps:
        saved = finder.at(branch.step)
    elif steps:
        raise ConfigError(
            f"branch.step: {run} has no checkpoint of step {branch.step}; it has "
            f"{', '.join(map(str, steps))}"
        )
    if saved is None:
        raise ConfigError(f"branch.run: {run} has no checkpoint to start from")
    return saved
