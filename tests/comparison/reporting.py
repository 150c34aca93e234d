"""Results of comparisons that were never run."""

from __future__ import annotations

from typing import Any

from megapt.comparison.results import (
    Budget,
    CorpusRecord,
    CurvePoint,
    HeadScores,
    MeasureRecord,
    Member,
    Results,
)
from megapt.evaluation import Sample
from megapt.evaluation.scores import Score

ATTACK = "<script>alert('x')</script> & \"more\""
CHINESE = "房间很干净，服务也不错。"


PROBE = MeasureRecord(
    name="probe",
    title="Probe accuracy",
    about="the share of documents whose class is found, with 95 % Wilson interval",
    unit="share",
    better="higher",
    settings={"train_documents": 6000},
    items=2022,
    material="4,000 training and 2,022 validation documents",
    baselines={"majority class": 0.521},
    untrained=Score(value=0.566, interval=(0.551, 0.581)),
)
REPETITION = MeasureRecord(
    name="repetition",
    title="Repetition",
    about="the share of 4-grams that occurred before",
    unit="share",
    better="lower",
    settings={},
    items=2,
    material="2 validation texts",
    baselines={},
    untrained=None,
)
SURPRISE = MeasureRecord(
    name="surprise",
    title="Surprise",
    about="how unlikely <texts> are",
    unit="nats",
    better="lower",
    settings={},
    items=100,
    material="100 texts",
    baselines={"unigram": 6.5},
    untrained=None,
)


def curve(*losses: float) -> list[CurvePoint]:
    return [
        CurvePoint(
            step=100 * i,
            raw_tokens=8e5 * i,
            positions=8.2e5 * i,
            targets=1.2e5 * i,
            wall_clock=7.5 * i,
            model_flops=4.1e11 * i,
            loss=loss,
        )
        for i, loss in enumerate(losses, start=1)
    ]


def member(name: str, **changes: Any) -> Member:
    values: dict[str, Any] = {
        "name": name,
        "objective": name,
        "settings": {"mask_rate": 0.15},
        "attention": "bidirectional",
        "uses_labels": False,
        "validation_loss": 4.512,
        "unigram_loss": 6.631,
        "heads": [
            HeadScores(
                head="tokens",
                kind="token",
                weight=1.0,
                loss=4.498,
                unigram_loss=6.617,
                accuracy=0.283,
                unigram_accuracy=0.047,
                targets=18_431,
            )
        ],
        "scores": {"probe": Score(value=0.612, interval=(0.597, 0.627))},
        "unanswered": {"repetition": f"'{name}' does not generate text"},
        "tokens_per_second": 51_234.0,
        "budget": Budget(
            raw_tokens=2.4e6, positions=2.47e6, targets=3.61e5, model_flops=1.23e12, wall_clock=46.8
        ),
        "steps": 293,
        "parameters": 1_345_678,
        "samples": [],
        "curve": curve(6.1, 5.2, 4.7),
        "ranks": 2,
        "run": f"members/{name}",
    }
    return Member(**{**values, **changes})


def comparison(*members: Member, **changes: Any) -> Results:
    values: dict[str, Any] = {
        "format": "megapt-comparison/3",
        "megapt_version": "0.1.0",
        "title": "Reviews & <others>",
        "corpus": CorpusRecord(
            name="评论",
            fingerprint="f00dfeed",
            train_documents=18_211,
            train_tokens=2_345_678,
            valid_documents=2_022,
            valid_tokens=261_333,
            labels=["neg", "pos"],
        ),
        "budget_axis": "raw_tokens",
        "budget_amount": 2.4e6,
        "model": {"num_layers": 2, "hidden_size": 128},
        "seed": 7,
        "ranks": 2,
        "device": "cpu",
        "window": 256,
        "window_policy": "fill",
        "measures": [PROBE, REPETITION],
        "skipped_measures": {},
        "held_equal": ["text and its order", "optimizer <AdamW>"],
        "not_equal": ["number of targets"],
        "members": list(members),
    }
    return Results(**{**values, **changes})


def three_members() -> Results:
    return comparison(
        member(
            "arlm",
            attention="causal",
            validation_loss=5.037,
            unigram_loss=6.702,
            scores={
                "probe": Score(value=0.571, interval=(0.556, 0.586)),
                "repetition": Score(value=0.031),
            },
            unanswered={},
            samples=[
                Sample(kind="continuation", prompt="酒店", text=CHINESE, repetition=0.031),
                Sample(kind="continuation", prompt="Hi", text=ATTACK, repetition=None),
            ],
            curve=curve(6.4, 5.6, 5.1),
        ),
        member("mlm"),
        member(
            "nsp",
            validation_loss=0.701,
            unigram_loss=0.693,
            scores={},
            unanswered={"probe": "its <states> are not finite"},
            curve=[],
        ),
    )
