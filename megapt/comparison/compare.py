"""Trains every member of a comparison under one budget and measures all of them alike."""

from __future__ import annotations

from pathlib import Path

import megapt
from megapt.checkpoint.run_folder import RunFolder
from megapt.comparison.probe import choose_probe
from megapt.comparison.results import (
    Budget,
    CorpusRecord,
    CurvePoint,
    HeadScores,
    Member,
    ProbeRecord,
    Results,
    Sample,
    load,
)
from megapt.comparison.samples import member_samples
from megapt.config import CompareConfig, Origins
from megapt.data import Corpus
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.evaluation import heldout_scores, load_run
from megapt.files import write_text
from megapt.model import build_model
from megapt.monitoring.metrics import read_metrics
from megapt.objectives import Objective
from megapt.training.checks import check_targets
from megapt.training.prepared import PreparedRun, open_corpus, prepare, verify_corpus
from megapt.training.trainer import Trainer

RESULTS, REPORT = "results.json", "report.html"

_HELD_EQUAL = (
    "the text: the k-th window is the same for all members",
    "the trunk: architecture and initial weights",
    "the optimiser, the learning rate and its schedule over the budget",
    "the number of windows an update, and the precision",
    "the held-out windows, and the documents of the probe",
)


class Comparison:
    """One comparison on the ranks of this job.

    Args:
        config: of the comparison.
        ranks: of the job.
        origins: of the configuration, for errors.

    Raises:
        ConfigError: before any member is trained, if one of them cannot be.
        MegaptError: if the corpus or the run of a member cannot be read; see `prepare`.
    """

    def __init__(self, config: CompareConfig, ranks: Ranks, origins: Origins) -> None:
        self.config = config
        self.ranks = ranks
        self.folder = Path(config.output)
        self.runs = {name: config.member(name) for name in config.members}
        if RunFolder(self.folder).config_file.is_file():
            raise ConfigError(f"{self.folder}: holds a run; choose another folder for 'output'")
        if config.data.mixture is not None:
            raise origins.error("data.mixture", "a comparison reads one corpus; name data.corpus")
        first = next(iter(self.runs.values()))
        corpus = open_corpus(first, ranks)
        assert isinstance(corpus, Corpus)  # of one corpus
        verify_corpus(corpus, first, ranks)
        self.corpus = corpus
        self.prepared: dict[str, PreparedRun] = {}
        for name, run in self.runs.items():
            path, windows = f"members.{name}", config.heldout_windows
            prepared = prepare(run, ranks, origins, corpus, path)
            check_targets(prepared.heldout, prepared.parts.objective, ranks, origins, path, windows)
            self.prepared[name] = prepared
        self._probe = choose_probe(config, self.corpus, ranks)

    def run(self) -> Results:
        """Train and measure every member; write results.json and report.html.

        A member that finished before is not trained again; the measures are taken anew, since
        they cost little and their settings may have changed.
        """
        members = []
        for name, prepared in self.prepared.items():
            # It goes with its engine: a comparison takes the memory of one member.
            Trainer(prepared).train()
            members.append(self._measure(name, prepared.parts.objective))
            self._say(members[-1])
        results = self._results(members)
        if self.ranks.main:
            write_text(self.folder / RESULTS, results.model_dump_json(indent=2) + "\n")
            # What is reported is what was written.
            # matplotlib, which only the rank that writes the report has to wait for.
            from megapt.comparison.report import render

            write_text(self.folder / REPORT, render(load(self.folder / RESULTS)))
        self.ranks.barrier()
        return results

    def _say(self, member: Member) -> None:
        if self.ranks.main:
            print(
                f"{member.name}: held-out loss {member.heldout_loss:.3f} "
                f"(unigram {member.unigram_loss:.3f}), {member.tokens_per_second:,.0f} tokens/s",
                flush=True,
            )

    def _measure(self, name: str, objective: Objective) -> Member:
        run = load_run(self.runs[name].output, self.ranks.device)
        windows = self.config.heldout_windows
        scores, unigram = heldout_scores(run, self.corpus, windows, self.ranks)
        accuracy = interval = None
        if self._probe is not None:
            accuracy, interval = self._probe.score(run.model, objective)
        samples: list[Sample] = []
        if self.ranks.main:
            samples = member_samples(run, self.corpus, self.config)
        self.ranks.barrier()
        rates = [sample.repetition for sample in samples if sample.repetition is not None]
        folder = RunFolder(self.runs[name].output)
        summary = folder.summary()
        return Member(
            name=name,
            objective=objective.name,
            settings=objective.config.model_dump(),
            attention=objective.attention,
            uses_labels=objective.uses_labels,
            heldout_loss=scores["loss"],
            unigram_loss=unigram["loss"],
            heads=[
                HeadScores(
                    head=head.name,
                    kind=head.kind,
                    weight=head.weight,
                    loss=scores[f"loss/{head.name}"],
                    unigram_loss=unigram[f"loss/{head.name}"],
                    accuracy=scores[f"accuracy/{head.name}"],
                    unigram_accuracy=unigram[f"accuracy/{head.name}"],
                    targets=int(unigram[f"targets/{head.name}"]),
                )
                for head in objective.heads
                if f"loss/{head.name}" in scores
            ],
            probe_accuracy=accuracy,
            probe_interval=interval,
            majority_accuracy=self._probe.majority if self._probe else None,
            tokens_per_second=summary["tokens_per_second"],
            budget=Budget(**summary["spent"]),
            steps=summary["steps"],
            parameters=sum(p.numel() for p in run.model.parameters()),
            samples=samples,
            repetition_rate=sum(rates) / len(rates) if rates else None,
            curve=_curve(folder),
            ranks=folder.ranks,
            run=f"members/{name}",
        )

    def _results(self, members: list[Member]) -> Results:
        config, manifest = self.config, self.corpus.manifest
        train, valid = manifest.splits["train"], manifest.splits["valid"]
        probe = None
        if self._probe is not None:
            # As the first member reads it; no trunk is trained here.
            name, prepared = next(iter(self.prepared.items()))
            objective = prepared.parts.objective
            model = build_model(self.runs[name], objective.heads, self.corpus.vocabulary.size)
            model = model.to(self.ranks.device).eval()
            accuracy, interval = self._probe.score(model, objective)
            probe = ProbeRecord(
                train_documents=len(self._probe.train),
                heldout_documents=len(self._probe.heldout),
                untrained_accuracy=accuracy,
                untrained_interval=interval,
                majority_accuracy=self._probe.majority,
            )
        return Results(
            format="megapt-comparison/1",
            megapt_version=megapt.__version__,
            title=config.title,
            corpus=CorpusRecord(
                fingerprint=manifest.fingerprint,
                train_documents=train.documents,
                train_tokens=train.tokens,
                valid_documents=valid.documents,
                valid_tokens=valid.tokens,
                labels=list(manifest.labels),
            ),
            budget_axis=config.training.budget.axis,
            budget_amount=config.training.budget.amount,
            model=config.model.model_dump(),
            seed=config.seed,
            ranks=self.ranks.world,
            device=str(self.ranks.device.type),
            window=config.data.window,
            policy=config.data.policy,
            probe=probe,
            held_equal=list(_HELD_EQUAL),
            not_equal=_not_equal(config, members),
            members=members,
        )


def _curve(folder: RunFolder) -> list[CurvePoint]:
    axes = Budget.model_fields
    return [
        CurvePoint(step=r["step"], loss=r["loss"], **{axis: r[axis] for axis in axes})
        for r in read_metrics(folder.metrics_file)
        if r["split"] == "valid"
    ]


def _not_equal(config: CompareConfig, members: list[Member]) -> list[str]:
    """Say what differs between the members beside the objective, as far as it is known."""
    axis = config.training.budget.axis
    others = [name for name in Budget.model_fields if name != axis]
    spent = [
        f"{name.replace('_', ' ')} "
        f"({min(getattr(m.budget, name) for m in members):.3g} to "
        f"{max(getattr(m.budget, name) for m in members):.3g})"
        for name in others
    ]
    said = [
        f"the budget is equal in {axis.replace('_', ' ')} alone; unequal are: {', '.join(spent)}",
        "the learning rate is the same for all and was tuned for none of them",
        "attention and the heads belong to the objective, so parameters differ by the heads",
        "held-out losses of different objectives answer different questions",
        "one run each: differences within the spread of seeds are not told apart",
    ]
    ranks = {member.ranks for member in members}
    if len(ranks) > 1:
        said.append(f"the number of ranks ({min(ranks)} to {max(ranks)}), and so tokens a second")
    labelled = [member.name for member in members if member.uses_labels]
    if labelled:
        said.append(
            f"{', '.join(labelled)} saw the classes of the training documents that the probe asks "
            f"for; the others never saw a class before the probe"
        )
    return said
