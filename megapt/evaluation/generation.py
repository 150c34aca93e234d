"""Text generation with causal and prefix trunks."""

from __future__ import annotations

from collections.abc import Sequence

from megapt.data import RESERVED
from megapt.data.example import Ints
from megapt.errors import ConfigError
from megapt.evaluation.loading import LoadedRun
from megapt.model.decoding import write
from megapt.objectives import ObjectiveError


def generate(
    run: LoadedRun,
    prompts: Sequence[Ints],
    *,
    max_tokens: int,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> list[Ints]:
    """Continue each prompt (causal) or rewrite it (prefix) until [EOS].

    Args:
        run: the trained run.
        prompts: text token ids of each prompt, any integer type [n].
        max_tokens: largest number of tokens to generate.
        temperature: temperature of the softmax; 0 takes the most likely token.
        top_p: probability mass of the nucleus.
        seed: key of the random draws, together with the prompt's number and the step.

    Returns:
        The generated text tokens of each prompt, int64.

    Raises:
        ConfigError: if the run's objective cannot generate, or a prompt is too long.
    """
    unable = ConfigError(
        f"{run.folder}: was trained with '{run.objective.name}', whose trunk is bidirectional "
        f"and cannot generate; runs of arlm, prefix_lm, mgm and others can"
    )
    head = run.objective.next_token_head
    if head is None:
        raise unable
    examples = []
    for prompt in prompts:
        try:
            example = run.objective.prompt(prompt)
        except ObjectiveError as error:
            raise ConfigError(str(error)) from None
        if example is None:
            raise unable
        run.check_length(prompt, "prompt")
        if excess := max(0, int(example.positions.max()) + 1 - run.longest_text - RESERVED):
            raise ConfigError(
                f"the prompt has {len(prompt)} tokens; with what '{run.objective.name}' puts "
                f"around it this run reads {len(prompt) - excess} at most"
            )
        examples.append(example)
    return write(
        run.model,
        examples,
        run.tokenizer.vocabulary,
        run.device,
        head=head.owner,
        positions=run.config.data.window,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )


def repetition(tokens: Ints, n: int = 4) -> float | None:
    """Return the share of n-grams that occurred before in the same text.

    seq-rep-n of Welleck et al. 2020 (arXiv 1908.04319), equation 9. None if there is no n-gram.
    """
    grams = [tuple(tokens[i : i + n].tolist()) for i in range(len(tokens) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else None
