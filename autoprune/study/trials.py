"""Run proposed trials in this process: load the parent, prune, train, measure, store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from autoprune.records.run_folder import RunFolder
from autoprune.search.proposal import Proposal
from autoprune.search.search import Search
from autoprune.search.settings import StudySettings
from autoprune.study import checkpoints, retention, store
from autoprune.study.rungs import rung_split
from autoprune.task.evaluation import Scorable
from autoprune.trial.candidate import RungPolicy, RungState, evaluate_resolved, measure_latency
from autoprune.trial.context import TrialContext
from autoprune.trial.identity import identity_of


@dataclass(frozen=True, slots=True)
class TrialRunner:
    """Runs trials of one study.

    Attributes:
        folder: Run folder.
        context: Context of the trials.
        settings: Settings of the run.
        rung_split: Part of the search split that is evaluated at rungs.
    """

    folder: RunFolder
    context: TrialContext
    settings: StudySettings
    rung_split: Scorable

    @classmethod
    def of(cls, folder: RunFolder, context: TrialContext, settings: StudySettings) -> TrialRunner:
        """Choose the part of the search split for rungs.

        Args:
            folder: Run folder.
            context: Context of the trials.
            settings: Settings of the run.
        """
        return cls(folder, context, settings, rung_split(context.task, settings.search.rung_samples))

    def limit_threads(self) -> None:
        """Set the number of threads again: the user's code may change it, and bits and latencies depend on it."""
        torch.set_num_threads(self.settings.measure.threads)

    def run(self, proposal: Proposal, search: Search) -> None:
        """Run one trial, store the candidate and tell the search.

        Args:
            proposal: Trial to run.
            search: Search that proposed it.
        """
        parent = None
        if proposal.start_from is not None:
            ancestor = next(record for record in search.records if record.number == proposal.start_from)
            parent = store.load_parent(self.context, self.folder, ancestor)

        def stop(state: RungState) -> bool:
            return search.should_stop(proposal, state.share, state.quality, state.costs)

        rungs = RungPolicy(shares=proposal.rungs, split=self.rung_split, stop=stop) if proposal.rungs else None
        every, resume = self.settings.storage.checkpoint_epochs, None
        if every:
            identity = identity_of(self.context, proposal.plan, proposal.start_from, proposal.rungs)
            resume = checkpoints.latest_state(self.folder, proposal.number, identity)
        write_checkpoint = checkpoints.writer(self.folder, proposal.number, every)
        candidate = evaluate_resolved(
            self.context, proposal.plan, parent, on_epoch=write_checkpoint, rungs=rungs, resume=resume
        )
        if candidate.measurement.predicted and search.reaches_front(proposal, store.result_of(candidate)):
            candidate = measure_latency(self.context, candidate)
        write = partial(store.store_candidate, self.folder, model=candidate.model)
        search.tell(proposal, store.result_of(candidate), write)
        checkpoints.remove_states(self.folder, proposal.number)
        if self.settings.storage.collect_garbage:
            in_use = [other.start_from for other in search.pending if other.start_from is not None]
            retention.remove_useless_weights(self.folder, search.state.records, search.front(), in_use)
