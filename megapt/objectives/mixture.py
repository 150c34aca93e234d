"""A mixture of objectives: each window of text goes to one of them.

L = sum_m (B_m / B) L_m, where member m gets B_m of the B windows of a step
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from megapt.config import ObjectiveSection, Origins, Section, validate
from megapt.config.section import MemberName, NonNegativeFloat, PositiveInt
from megapt.data import CounterRng, Example, HeadSpec, Window
from megapt.data.example import Floats, Ints, LossWeighting
from megapt.objectives.base import Context, Cost, Objective, ObjectiveError
from megapt.objectives.catalogue import build_objective

Weights = dict[MemberName, NonNegativeFloat]


class MixtureStage(Section):
    """Weights that apply from a point of the run; either `step` or `share` is given."""

    step: PositiveInt | None = None
    """First step with these weights."""
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the planned steps before these weights."""
    weights: Weights
    """Member -> weight; a member that is not named keeps its weight."""

    @model_validator(mode="after")
    def _one_place(self) -> MixtureStage:
        if (self.step is None) == (self.share is None):
            raise ValueError("should give either step or share")
        return self


class MixtureConfig(Section):
    """Settings of `mixture`."""

    members: Annotated[dict[MemberName, ObjectiveSection], Field(min_length=1)]
    """Name of a member -> its objective."""
    weights: Weights = Field(default_factory=dict)
    """Member -> weight, relative to the others; a member that is not named has 1."""
    schedule: list[MixtureStage] = Field(default_factory=list)
    """Changes of the weights, in ascending order."""
    loss: LossWeighting = "windows"
    """What counts equally in the loss. `windows`: each window. `targets`: each prediction, as in T5
    and UL2. `all`: the mean loss of each member, however rarely it gets a window."""

    @field_validator("members")
    @classmethod
    def _module_names(cls, members: dict[str, ObjectiveSection]) -> dict[str, ObjectiveSection]:
        for name in members:
            if "." in name:
                raise ValueError(
                    f"'{name}' has a dot; a member's name may contain letters, digits, _ and -"
                )
        return members

    @model_validator(mode="after")
    def _known_members(self) -> MixtureConfig:
        for weights in (self.weights, *(stage.weights for stage in self.schedule)):
            unknown = sorted(set(weights) - set(self.members))
            if unknown:
                raise ValueError(
                    f"weights name '{unknown[0]}'; the members are {', '.join(self.members)}"
                )
        return self


class Mixture(Objective):
    """A member is drawn for each window, by weights that may change with the step.

    The draw depends only on the window, so it is the same on any number of ranks. Heads of the same
    kind share their weights; losses are reported for each member.
    """

    name = "mixture"
    Config: ClassVar[type[Section]] = MixtureConfig

    def __init__(self, config: Any, context: Context, members: Mapping[str, Objective]) -> None:
        super().__init__(config, context)
        self.members = dict(members)
        kinds = {member.attention for member in self.members.values()}
        self.attention = kinds.pop() if len(kinds) == 1 else "prefix"
        self.segments = max(member.segments for member in self.members.values())
        # Names of the first members that generate, that fill masks, that classify.
        self._generating = self._first(lambda member: member.generates)
        self._filling = self._first(lambda member: member.fills_masks)
        self._classifying = self._first(lambda member: member.class_head is not None)
        self.rewrites = self._generating is not None and self.members[self._generating].rewrites
        self._starts, self._shares = self._stages()

    @classmethod
    def build(
        cls, settings: Mapping[str, Any], context: Context, origins: Origins, path: str
    ) -> Objective:
        """Build the members, then the mixture; see `Objective.build`."""
        config: Any = validate(cls.Config, settings, origins, path)
        members = {
            name: build_objective(section, context, origins, f"{path}.members.{name}")
            for name, section in config.members.items()
        }
        return cls(config, context, members)

    def _stages(self) -> tuple[Ints, Floats]:
        """Return the first step of each stage and the shares of the members in it.

        The steps are int64 [stages], the shares float64 [stages, members].
        """
        weights = dict.fromkeys(self.members, 1.0) | self.config.weights
        starts, rows = [0], [list(weights.values())]
        for stage in self.config.schedule:
            starts.append(stage.step if stage.step is not None else self._step(stage.share))
            weights |= stage.weights
            rows.append(list(weights.values()))
        if starts != sorted(set(starts)):
            raise ObjectiveError(
                f"the stages of the schedule, including the first weights, begin at steps "
                f"{starts}; they should rise"
            )
        steps = self.context.steps
        if steps is not None and len(starts) > 1 and starts[-1] >= steps:
            raise ObjectiveError(
                f"a stage of the schedule begins at step {starts[-1]}, but the budget ends after "
                f"{steps} steps, 0 to {steps - 1}: only the validation set would have its weights; "
                f"begin it earlier or remove it"
            )
        table = np.array(rows)
        for start, row in zip(starts, table, strict=True):
            if not row.any():
                raise ObjectiveError(
                    f"from step {start} on, all members have weight 0; one should be above 0"
                )
        table /= table.max(axis=1, keepdims=True)  # the sum of huge weights would overflow
        return np.array(starts), table / table.sum(axis=1, keepdims=True)

    def _step(self, share: float) -> int:
        if self.context.steps is None:
            raise ObjectiveError(
                "a stage at a share of the run needs a budget in raw_tokens: only then the steps "
                "of a run are known in advance; give its step instead"
            )
        return round(share * self.context.steps)

    def shares(self, step: int | None) -> Floats:
        """Return the probability of each member at a step (None: at the end), float64 [members]."""
        last = len(self._starts) - 1
        stage = last if step is None else int(self._starts.searchsorted(step, side="right")) - 1
        shares: Floats = self._shares[stage]
        return shares

    @cached_property
    def heads(self) -> tuple[HeadSpec, ...]:
        """The heads of all members; heads that differ only in their loss share their weights."""
        seen: dict[str, HeadSpec] = {}
        found = []
        for member, objective in self.members.items():
            for head in objective.heads:
                kind = replace(head, name=head.owner, module="", weight=1.0, role="", shares=())
                same = seen.setdefault(head.owner, kind) == kind
                module = head.owner if same else f"{member}/{head.owner}"
                name = f"{member}/{head.name}"
                shares = (self.config.loss, *head.shares)
                role = objective.role(head)
                found.append(replace(head, name=name, role=role, module=module, shares=shares))
        return tuple(found)

    def _part(
        self, member: str | None, head_of: Callable[[Objective], HeadSpec | None]
    ) -> HeadSpec | None:
        """Return the mixture's head for this head of a member; None if there is none."""
        head = None if member is None else head_of(self.members[member])
        if head is None:
            return None
        return next(part for part in self.heads if part.name == f"{member}/{head.name}")

    @property
    def next_token_head(self) -> HeadSpec | None:
        """The head of the member that answers prompts; None if there is none."""
        return self._part(self._generating, lambda member: member.next_token_head)

    @property
    def masked_token_head(self) -> HeadSpec | None:
        """The head of the member that fills masks; None if there is none."""
        return self._part(self._filling, lambda member: member.masked_token_head)

    @property
    def class_head(self) -> HeadSpec | None:
        """The head of the first member that has a class head; None if there is none."""
        return self._part(self._classifying, lambda member: member.class_head)

    @property
    def uses_labels(self) -> bool:
        """Whether a member trains on the classes of the documents."""
        return any(member.uses_labels for member in self.members.values())

    def leaves(self, path: str) -> Iterator[tuple[str, Objective]]:
        """Yield the leaves of all members."""
        for name, member in self.members.items():
            yield from member.leaves(f"{path}.members.{name}")

    def cost(self, tokens: int) -> Cost:
        """Return the mean cost of the members, weighted by their shares at the end of the run."""
        costs = [member.cost(tokens) for member in self.members.values()]
        shares = self.shares(None)
        return Cost(
            float(shares @ [cost.positions for cost in costs]),
            float(shares @ [cost.targets for cost in costs]),
        )

    def longest_example(self, window: int) -> int:
        """Return the maximum over the members."""
        return max(member.longest_example(window) for member in self.members.values())

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return the examples of the member that is drawn for the window."""
        total = self.shares(window.step).cumsum()
        drawn = int(total.searchsorted(rng.uniform(1)[0] * total[-1], side="right"))
        name, member = list(self.members.items())[drawn]
        return [
            Example(
                tokens=e.tokens,
                positions=e.positions,
                segments=e.segments,
                visible=e.visible,
                targets={f"{name}/{head}": targets for head, targets in e.targets.items()},
                document=e.document,
            )
            for e in member.examples(window, rng.child(name))
        ]

    def present(self, tokens: Ints) -> Example:
        """Return the text in the form of the first member."""
        return next(iter(self.members.values())).present(tokens)

    def prompt(self, tokens: Ints) -> Example | None:
        """Return the prompt of the first member that can generate."""
        return None if self._generating is None else self.members[self._generating].prompt(tokens)

    def sample_prompt(self, tokens: Ints, rng: CounterRng) -> Ints:
        """Return the sample prompt of the member that answers prompts."""
        if self._generating is None:
            return super().sample_prompt(tokens, rng)
        return self.members[self._generating].sample_prompt(tokens, rng)

    def classified(self, tokens: Ints) -> Example | None:
        """Return the text in the form of the first member that predicts its class."""
        member = self._classifying
        if member is None:
            return None
        return self._with_own_modules(member, self.members[member].classified(tokens))

    def masked(self, tokens: Ints) -> Example | None:
        """Return the masked text of the first member that predicts masked tokens."""
        member = self._filling
        if member is None:
            return None
        return self._with_own_modules(member, self.members[member].masked(tokens))

    def _with_own_modules(self, member: str, example: Example | None) -> Example | None:
        """Return a member's example with the targets under the modules of the mixture."""
        if example is None:
            return None
        owners = {part.name: part.owner for part in self.heads}
        modules = {h.owner: owners[f"{member}/{h.name}"] for h in self.members[member].heads}
        targets = {modules[module]: targets for module, targets in example.targets.items()}
        return replace(example, targets=targets)

    def _first(self, condition: Callable[[Objective], bool]) -> str | None:
        """Return the name of the first member that satisfies the condition, None if none does."""
        return next((name for name, member in self.members.items() if condition(member)), None)
