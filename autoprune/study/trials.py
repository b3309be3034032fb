"""Run proposed trials in this process: load the parent, prune, train, measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.search.proposal import Proposal
from autoprune.search.settings import StudySettings
from autoprune.study import checkpoints, store
from autoprune.study.rungs import rung_split
from autoprune.task.evaluation import Scorable
from autoprune.trial.candidate import Candidate, RungPolicy, RungState, evaluate_resolved
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

    def run(self, proposal: Proposal, ancestor: CandidateRecord | None, stop: Callable[[RungState], bool]) -> Candidate:
        """Run one trial. Nothing is stored but checkpoints, where these are requested.

        Args:
            proposal: Trial to run.
            ancestor: Candidate whose weights it starts from; None for those of the dense model.
            stop: Rule that is asked at each rung whether to end the training.

        Returns:
            The finished candidate.
        """
        self.limit_threads()
        parent = None if ancestor is None else store.load_parent(self.context, self.folder, ancestor)
        rungs = RungPolicy(shares=proposal.rungs, split=self.rung_split, stop=stop) if proposal.rungs else None
        every, resume = self.settings.storage.checkpoint_epochs, None
        if every:
            identity = identity_of(self.context, proposal.plan, proposal.start_from, proposal.rungs)
            resume = checkpoints.latest_state(self.folder, proposal.number, identity)
        write = checkpoints.writer(self.folder, proposal.number, every)
        return evaluate_resolved(self.context, proposal.plan, parent, on_epoch=write, rungs=rungs, resume=resume)
