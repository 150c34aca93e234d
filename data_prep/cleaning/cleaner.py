"""The cleaner, which runs the steps on each text."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_prep.cleaning.outcome import Cleaned, Removed, StepSettings

_NONE = Counter[str]()


@dataclass(frozen=True)
class Traced:
    """What one step did to a text."""

    step: str
    """Name of the step."""
    before: str
    """The input text of the step."""
    after: str | Removed
    """The output text, or why the step removes the text. In the second case, the next step gets
    `before`."""
    changes: Counter[str]
    """Counts of the changes; empty if there are none."""


class Cleaner:
    """Clean texts. The result for a text does not depend on the texts before it.

    Args:
        steps: the steps, in the order in which they run.

    Raises:
        PrepError: a library or file that a step needs is missing.
    """

    def __init__(self, steps: Sequence[StepSettings]) -> None:
        self.steps = tuple(steps)
        self._rules = [step.rule() for step in self.steps]

    def __reduce__(self) -> tuple[type["Cleaner"], tuple[tuple[StepSettings, ...]]]:
        return Cleaner, (self.steps,)

    def clean(self, text: str) -> Cleaned | Removed:
        """Run the steps, up to the first that removes the text.

        If only white space is left, the text is removed with the reason "empty".
        """
        if not self._rules:
            return Cleaned(text, _NONE)
        changes = Counter[str]()
        for rule in self._rules:
            outcome = rule(text, changes)
            if isinstance(outcome, Removed):
                return outcome
            text = outcome
        if not text or text.isspace():
            return Removed("empty", "nothing is left")
        return Cleaned(text, +changes)  # "+" drops counts of 0

    def trace(self, text: str) -> Iterator[Traced]:
        """Yield what each step does to a text; a step that removes it does not end the trace."""
        for step, rule in zip(self.steps, self._rules, strict=True):
            changes = Counter[str]()
            outcome = rule(text, changes)
            yield Traced(step.name, text, outcome, +changes)
            text = text if isinstance(outcome, Removed) else outcome
