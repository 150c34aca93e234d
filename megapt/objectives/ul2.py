"""UL2 (Tay et al. 2022a): regular, extreme and sequential denoising in turn; and UL2R (2022b).

L = -sum_t log P(z_t | source, z_1 ... z_{t-1}), where a drawn denoiser makes source and z
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from megapt.config import ObjectiveSection, Origins, Section, validate
from megapt.objectives.base import Context, Objective
from megapt.objectives.catalogue import build_objective
from megapt.objectives.mixture import Mixture, MixtureConfig
from megapt.objectives.spans import Mode


class Denoiser(NamedTuple):
    """A member of a recipe."""

    weight: float
    """Weight relative to the other members."""
    mode: Mode
    """Mode token."""
    rate: float
    """Share of the tokens that is predicted."""
    mean: float | None = None
    """Mean length of a span in tokens; None: the end of the text is predicted."""

    def section(self, mode_tokens: bool) -> ObjectiveSection:
        """Return the settings of this denoiser."""
        mode = self.mode if mode_tokens else None
        if self.mean is None:
            return ObjectiveSection(name="prefix_lm", target_rate=self.rate, mode=mode)
        return ObjectiveSection(
            name="span_corruption", noise_density=self.rate, mean_span_length=self.mean, mode=mode
        )


RECIPES = {
    "ul2": {
        "x3_50": Denoiser(1, "NLG", 0.5, 3.0),
        "r3_15": Denoiser(1, "NLU", 0.15, 3.0),
        "r8_15": Denoiser(1, "NLU", 0.15, 8.0),
        "x8_50": Denoiser(1, "NLG", 0.5, 8.0),
        "x64_15": Denoiser(1, "NLG", 0.15, 64.0),
        "x64_50": Denoiser(1, "NLG", 0.5, 64.0),
        "s": Denoiser(1, "S2S", 0.25),
    },
    "ul2r": {
        "x3_50": Denoiser(0.125, "NLG", 0.5, 3.0),
        "r3_15": Denoiser(0.25, "NLU", 0.15, 3.0),
        "x32_15": Denoiser(0.125, "NLG", 0.15, 32.0),
        "s": Denoiser(0.5, "S2S", 0.25),
    },
}
"""Recipe -> name of a denoiser (its kind, mean span length and rate in percent) -> the denoiser.

The denoiser with the most spans comes first: if it is refused, its error names a window and a
number of sentinels that are enough for all.
"""


class Ul2Config(Section):
    """The denoisers, and whether mode tokens mark them."""

    recipe: Literal["ul2", "ul2r"] = "ul2"
    """`ul2`: the seven denoisers of UL2, with equal weights. `ul2r`: the four denoisers of UL2R,
    where the sequential denoiser gets half of the windows."""
    mode_tokens: bool = True
    """Whether [NLU], [NLG] or [S2S] in the example says what to predict."""


class Ul2(Mixture):
    """A mixture of `span_corruption` and `prefix_lm` with the settings of a recipe.

    Each window goes to one denoiser. All predictions have the same weight in the loss.
    """

    name = "ul2"
    Config = Ul2Config

    @classmethod
    def build(
        cls, settings: Mapping[str, Any], context: Context, origins: Origins, path: str
    ) -> Objective:
        """Build the denoisers, then the mixture; see `Objective.build`."""
        config: Any = validate(cls.Config, settings, origins, path)
        recipe = RECIPES[config.recipe]
        mixture = MixtureConfig(
            members={name: d.section(config.mode_tokens) for name, d in recipe.items()},
            weights={name: float(d.weight) for name, d in recipe.items()},
            loss="targets",
        )
        members = {
            name: build_objective(section, context, origins, path)
            for name, section in mixture.members.items()
        }
        return cls(mixture, context, members)

    def __init__(self, config: Any, context: Context, members: Mapping[str, Objective]) -> None:
        super().__init__(config, context, members)
        self._generating = "s"  # The sequential denoiser continues texts.
