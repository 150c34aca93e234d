"""Finding a checkpoint that can be trusted."""

from __future__ import annotations

from pathlib import Path

from megapt.checkpoint.events import Events
from megapt.checkpoint.manifest import damage, mend, read_manifest
from megapt.checkpoint.remote import Copies
from megapt.checkpoint.state import Saved, checkpoint_path, read_state, steps_saved
from megapt.config import BranchConfig
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError, DamagedError, MegaptError


class Finder:
    """Looks for checkpoints; every file is hashed by one of the ranks.

    All ranks call the same methods in the same order, and find the same.

    Args:
        folder: of a run's checkpoints; it need not exist.
        ranks: of the job.
        events: are told of what is passed over.
        copies: where else to look.
        run: whose checkpoints are expected; empty for those of any run.
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
        """Return the newest checkpoint that is whole; None if there is none at all.

        Args:
            before: only those of earlier steps than this.
            fetching: whether copies may be used.

        Raises:
            ConfigError: on all ranks, if another run or another version of megapt wrote one.
            DamagedError: on all ranks, if all checkpoints are damaged.
            UnavailableError: on all ranks, if copies are needed and cannot be read.
        """
        if self._ranks.main:
            mend(self._folder)
        saved, problem = self._search(before)
        if self._copies is not None:
            self._check_copies(self._copies, needed=saved is None, fetching=fetching)
            if saved is None and fetching:
                self._fetch(self._copies)
                saved, problem = self._search(before)
        if saved is None and problem:
            raise DamagedError(
                f"{self._folder}: none of the checkpoints can be used ({problem}); restore one "
                f"from a copy, or remove the folder to start anew"
            )
        return saved

    def at(self, step: int) -> Saved:
        """Return the checkpoint of a step.

        Raises:
            DamagedError: on all ranks, if there is none, or it is damaged.
            ConfigError: on all ranks, if another version of megapt wrote it.
        """
        path = checkpoint_path(self._folder, step)
        if problem := self._damage(path):
            raise DamagedError(f"{path}: {problem}")
        return self._saved(step)

    def _check_copies(self, copies: Copies, needed: bool, fetching: bool) -> None:
        """Refuse a place that holds the copies of another run, which ours would replace.

        Args:
            copies: the place.
            needed: whether it must be read; what is not needed may be out of reach for now.
            fetching: whether copies of this run would be used.

        Raises:
            ConfigError: on all ranks.
            MegaptError: on all ranks, if what is needed cannot be read.
        """
        with self._ranks.together():
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
                    f"this one under other settings; choose another place"
                )
            if not fetching:
                raise ConfigError(
                    f"checkpoint.copy_to: {copies.where} holds checkpoints of this run, and "
                    f"checkpoint.resume is 'never'; choose another place, or remove them"
                )

    def _search(self, before: int | None) -> tuple[Saved | None, str]:
        """Return the newest that is whole, or what is wrong with the oldest."""
        steps: list[int] = self._ranks.gather(steps_saved(self._folder))[0]
        steps = [step for step in steps if before is None or step < before]
        problem = ""
        for step in reversed(steps):
            path = checkpoint_path(self._folder, step)
            if not (problem := self._damage(path)):
                return self._saved(step), ""
            problem = f"{path}: {problem}"
            self._events.tell(step, "damaged", f"{problem}; it is passed over")
        return None, problem

    def _fetch(self, copies: Copies) -> None:
        """Bring the newest copy that is whole.

        Raises:
            MegaptError: on all ranks, if the place cannot be read; see `Copies.fetch`.
        """
        with self._ranks.together():
            passed_over = copies.fetch(self._folder) if self._ranks.main else {}
        for step, problem in passed_over.items():
            text = f"{copies.where}: step {step}: {problem}; it is passed over"
            self._events.tell(step, "damaged", text)

    def _damage(self, path: Path) -> str:
        """Return what is wrong with a checkpoint, in one line; the same on all ranks."""
        problems: list[str] = []
        with self._ranks.together():
            try:
                manifest = read_manifest(path)
                if self._run and manifest.run != self._run:
                    raise ConfigError(
                        f"{path}: is of another run, or of this one under other settings"
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
        with self._ranks.together():
            state = read_state(path)
        return Saved(step, path, state)


def branch_start(branch: BranchConfig, ranks: Ranks) -> Saved:
    """Return the checkpoint of another run that a run begins with.

    Raises:
        ConfigError: on all ranks, if there is none.
        DamagedError: on all ranks, if it is damaged.
    """
    run = Path(branch.run)
    there, steps = ranks.gather((run.is_dir(), steps_saved(run / "checkpoints")))[0]
    if not there:
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
        raise ConfigError(f"branch.run: {run} has no checkpoint to begin with")
    return saved
