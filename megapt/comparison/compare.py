"""Training of every member of a comparison under one budget, with the same measures for all."""

from __future__ import annotations

from pathlib import Path

import megapt
from megapt.checkpoint.run_folder import RunFolder, keep_sources
from megapt.comparison.measuring import ask, choose_measures
from megapt.comparison.results import (
    Budget,
    CorpusRecord,
    CurvePoint,
    HeadScores,
    Member,
    Results,
    dump,
    load,
)
from megapt.config import CompareConfig, Origins
from megapt.data import Corpus
from megapt.distributed.ranks import Ranks
from megapt.errors import ConfigError
from megapt.evaluation import (
    Sample,
    load_run,
    sample_texts,
    validation_scores,
    write_samples,
)
from megapt.evaluation.measures import Measure, Score
from megapt.files import write_text
from megapt.monitoring.metrics import read_metrics
from megapt.objectives import Objective
from megapt.training.checks import check_targets
from megapt.training.parts import check_comparison
from megapt.training.prepared import PreparedRun, open_corpus, prepare, verify_corpus
from megapt.training.trainer import Trainer

RESULTS, REPORT = "results.json", "report.html"

_HELD_EQUAL = (
    "the text: the k-th window is the same for all members",
    "the trunk: architecture and initial weights",
    "the optimizer, the learning rate and its schedule over the budget",
    "the global batch, in windows, and the precision",
    "the validation windows, and the items of each measure",
)


class Comparison:
    """One comparison on the ranks of this job.

    Args:
        config: configuration of the comparison.
        ranks: the ranks of the job.
        origins: origins of the configuration, for errors.

    Raises:
        ConfigError: if a member cannot be trained, before any of them is.
        MegaptError: if the corpus or the run of a member cannot be read; see `prepare`.
    """

    def __init__(self, config: CompareConfig, ranks: Ranks, origins: Origins) -> None:
        self.config = config
        self.ranks = ranks
        self.folder = Path(config.output)
        self.runs = {name: config.member(name) for name in config.members}
        if RunFolder(self.folder).config_file.is_file():
            raise ConfigError(f"{self.folder}: holds a run; choose another folder for 'output'")
        check_comparison(config, origins)
        first = next(iter(self.runs.values()))
        corpus = open_corpus(first, ranks)
        assert isinstance(corpus, Corpus)  # of one corpus
        verify_corpus(corpus, first, ranks)
        self.corpus = corpus
        self.prepared: dict[str, PreparedRun] = {}
        for name, run in self.runs.items():
            path, windows = f"members.{name}", config.validation_windows
            prepared = prepare(run, ranks, origins, corpus, path)
            check_targets(
                prepared.validation, prepared.parts.objective, ranks, origins, path, windows
            )
            self.prepared[name] = prepared
        self._measures = choose_measures(config, self.corpus, ranks, origins)

    def run(self) -> Results:
        """Train and measure every member; write results.json and report.html.

        A finished member is not trained again. All measures are computed again: they are cheap,
        and their settings may have changed.
        """
        if self.ranks.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            keep_sources(self.folder, self._measures.sources)
        members = []
        for name in self.runs:
            # Without the reference its memory is freed: a comparison needs the memory of one model.
            prepared = self.prepared.pop(name)
            Trainer(prepared).train()
            members.append(self._measure(name, prepared.parts.objective))
            self._print_summary(members[-1])
        results = self._results(members)
        if self.ranks.main:
            write_text(self.folder / RESULTS, dump(results))
            # This imports matplotlib; only the rank that writes the report waits for it.
            from megapt.comparison.report import render

            # The report is made from the file, so that it shows what was written.
            write_text(self.folder / REPORT, render(load(self.folder / RESULTS)))
        self.ranks.barrier()
        return results

    def _print_summary(self, member: Member) -> None:
        if self.ranks.main:
            print(
                f"{member.name}: validation loss {member.validation_loss:.3f} "
                f"(unigram {member.unigram_loss:.3f}), {member.tokens_per_second:,.0f} tokens/s",
                flush=True,
            )

    def _measure(self, name: str, objective: Objective) -> Member:
        run = load_run(self.runs[name].output, self.ranks.device)
        windows = self.config.validation_windows
        scores, unigram = validation_scores(run, self.corpus, windows, self.ranks)
        answers, unanswered = ask(self._measures.chosen, run)
        samples: list[Sample] = []
        with self.ranks.shared_errors():
            if self.ranks.main:
                texts = sample_texts(self.corpus, self.config.num_samples, self.config.data.window)
                longest, seed = self.config.max_new_tokens, self.config.seed
                samples = write_samples(run, texts, max_tokens=longest, seed=seed)
        folder = RunFolder(self.runs[name].output)
        summary = folder.summary()
        return Member(
            name=name,
            objective=objective.name,
            settings=objective.config.model_dump(),
            attention=objective.attention,
            uses_labels=objective.uses_labels,
            validation_loss=scores["loss"],
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
            scores=answers,
            unanswered=unanswered,
            tokens_per_second=summary["tokens_per_second"],
            budget=Budget(**summary["spent"]),
            steps=summary["steps"],
            parameters=sum(p.numel() for p in run.model.parameters()),
            samples=samples,
            curve=_curve(folder),
            ranks=folder.ranks,
            run=f"members/{name}",
        )

    def _untrained(self, members: list[Member]) -> dict[str, Score]:
        """Return the untrained trunk's scores, read as by the first member that has a score."""
        scores: dict[str, Score] = {}
        wanted = [measure for measure in self._measures.chosen if measure.untrained]
        for member in members:
            due = [m for m in wanted if m.name in member.scores and m.name not in scores]
            if due:
                run = load_run(self.runs[member.name].output, self.ranks.device, trained=False)
                scores |= ask(due, run)[0]
        return scores

    def _results(self, members: list[Member]) -> Results:
        config, manifest, measures = self.config, self.corpus.manifest, self._measures
        train, valid = manifest.splits["train"], manifest.splits["valid"]
        untrained = self._untrained(members)
        return Results(
            format="megapt-comparison/3",
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
            window_policy=config.data.window_policy,
            measures=[
                record.model_copy(update={"untrained": untrained.get(record.name)})
                for record in measures.records
            ],
            skipped_measures=measures.skipped_measures,
            held_equal=list(_HELD_EQUAL),
            not_equal=_not_equal(config, members, measures.chosen),
            members=members,
        )


def _curve(folder: RunFolder) -> list[CurvePoint]:
    axes = Budget.model_fields
    return [
        CurvePoint(step=r["step"], loss=r["loss"], **{axis: r[axis] for axis in axes})
        for r in read_metrics(folder.metrics_file)
        if r["split"] == "valid"
    ]


def _not_equal(config: CompareConfig, members: list[Member], measures: list[Measure]) -> list[str]:
    """Return sentences on the known differences between the members, except the objective."""
    axis = config.training.budget.axis
    others = [name for name in Budget.model_fields if name != axis]
    spent = [
        f"{name.replace('_', ' ')} "
        f"({min(getattr(m.budget, name) for m in members):.3g} to "
        f"{max(getattr(m.budget, name) for m in members):.3g})"
        for name in others
    ]
    notes = [
        f"the budget is equal only in {axis.replace('_', ' ')}; these differ: {', '.join(spent)}",
        "the learning rate is the same for all members and was not tuned for any of them",
        "attention and heads belong to the objective, so parameter counts differ by the heads",
        "validation losses of different objectives measure different tasks",
        "each member is one run, and differences between seeds are not measured",
    ]
    ranks = {member.ranks for member in members}
    if len(ranks) > 1:
        notes.append(
            f"the number of ranks ({min(ranks)} to {max(ranks)}), and therefore tokens per second"
        )
    labeled = [member.name for member in members if member.uses_labels]
    if labeled:
        asking = " and ".join(f"the {m.name}" for m in measures if m.uses_labels)
        used = f", which {asking} uses" if asking else ""
        notes.append(
            f"{', '.join(labeled)} saw the classes of the training documents{used}; the others "
            f"saw no class before they were measured"
        )
    return notes
