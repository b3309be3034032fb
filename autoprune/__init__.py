"""autoprune: give it a trained PyTorch model, a way to score it and a budget; get the Pareto front of smaller,
faster models.

Names are imported when they are first used, so that `autoprune --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoprune.cli.main import main as main
    from autoprune.explaining.explain import explain as explain
    from autoprune.explaining.explanation import Explanation as Explanation
    from autoprune.export.safetensors import load_safetensors as load_safetensors
    from autoprune.front.front import Front as Front
    from autoprune.front.repeats import Repeats as Repeats
    from autoprune.front.run import Run as Run
    from autoprune.plan.allocation import BlockPlan as BlockPlan
    from autoprune.plan.allocation import GroupPlan as GroupPlan
    from autoprune.plan.allocation import RankingPlan as RankingPlan
    from autoprune.plan.kept import KeptChannels as KeptChannels
    from autoprune.plan.plan import PruningPlan as PruningPlan
    from autoprune.plan.recovery import AveragingPlan as AveragingPlan
    from autoprune.plan.recovery import DistillationPlan as DistillationPlan
    from autoprune.plan.recovery import MaxNormPlan as MaxNormPlan
    from autoprune.plan.recovery import RecalibrationPlan as RecalibrationPlan
    from autoprune.plan.recovery import ReconstructionPlan as ReconstructionPlan
    from autoprune.plan.recovery import RecoveryPlan as RecoveryPlan
    from autoprune.plan.recovery import SchedulePlan as SchedulePlan
    from autoprune.plan.weights import WeightPlan as WeightPlan
    from autoprune.records.limits import Limits as Limits
    from autoprune.records.profile import LatencyProfile as LatencyProfile
    from autoprune.report.plotted import figure as figure
    from autoprune.report.plotted import figure_layers as figure_layers
    from autoprune.search.backend import SearchBackend as SearchBackend
    from autoprune.search.proposal import Proposal as Proposal
    from autoprune.search.settings import MeasureSettings as MeasureSettings
    from autoprune.search.settings import StorageSettings as StorageSettings
    from autoprune.search.settings import StudySettings as StudySettings
    from autoprune.search.settings import WorkerSettings as WorkerSettings
    from autoprune.search.space.pruning_space import PruningSpace as PruningSpace
    from autoprune.search.space.setting_groups import MaskSettings as MaskSettings
    from autoprune.search.space.setting_groups import RecoverySettings as RecoverySettings
    from autoprune.search.space.setting_groups import ScheduleSettings as ScheduleSettings
    from autoprune.search.space.setting_groups import SearchSettings as SearchSettings
    from autoprune.search.space.setting_groups import StructureSettings as StructureSettings
    from autoprune.search.space.settings import SpaceSettings as SpaceSettings
    from autoprune.search.told import Details as Details
    from autoprune.structure.fitted import structure_of_costs as structure_of_costs
    from autoprune.structure.stored import Structure as Structure
    from autoprune.structure.topology import Topology as Topology
    from autoprune.structure.written import Block as Block
    from autoprune.structure.written import Group as Group
    from autoprune.structure.written import Layer as Layer
    from autoprune.structure.written import structure_of_layers as structure_of_layers
    from autoprune.study.evaluate import evaluate as evaluate
    from autoprune.study.progress import Progress as Progress
    from autoprune.study.repeat import repeat as repeat
    from autoprune.study.study import Study as Study
    from autoprune.surgery.cut import cut as cut
    from autoprune.task.prepare import PreparedTask as PreparedTask
    from autoprune.task.prepare import prepare as prepare
    from autoprune.task.preprocessing import Scaler as Scaler
    from autoprune.task.preprocessing import fit_normalize as fit_normalize
    from autoprune.task.preprocessing import fit_standardize as fit_standardize
    from autoprune.task.task import Task as Task
    from autoprune.trial.apply import apply as apply
    from autoprune.trial.apply import discover as discover
    from autoprune.trial.candidate import Candidate as Candidate
    from autoprune.trial.context import TrialContext as TrialContext

__version__ = "0.1.0"

try:
    #: Working directory when autoprune was first imported: a script that is run by itself may change it before main().
    STARTED_IN: Path | None = Path.cwd()
except OSError:  # it was removed
    STARTED_IN = None

_WHERE = {
    "AveragingPlan": "autoprune.plan.recovery",
    "Block": "autoprune.structure.written",
    "BlockPlan": "autoprune.plan.allocation",
    "Candidate": "autoprune.trial.candidate",
    "Details": "autoprune.search.told",
    "DistillationPlan": "autoprune.plan.recovery",
    "Explanation": "autoprune.explaining.explanation",
    "Front": "autoprune.front.front",
    "Group": "autoprune.structure.written",
    "GroupPlan": "autoprune.plan.allocation",
    "KeptChannels": "autoprune.plan.kept",
    "LatencyProfile": "autoprune.records.profile",
    "Layer": "autoprune.structure.written",
    "Limits": "autoprune.records.limits",
    "MaskSettings": "autoprune.search.space.setting_groups",
    "MaxNormPlan": "autoprune.plan.recovery",
    "MeasureSettings": "autoprune.search.settings",
    "PreparedTask": "autoprune.task.prepare",
    "Progress": "autoprune.study.progress",
    "Proposal": "autoprune.search.proposal",
    "PruningPlan": "autoprune.plan.plan",
    "PruningSpace": "autoprune.search.space.pruning_space",
    "RankingPlan": "autoprune.plan.allocation",
    "RecalibrationPlan": "autoprune.plan.recovery",
    "ReconstructionPlan": "autoprune.plan.recovery",
    "RecoveryPlan": "autoprune.plan.recovery",
    "RecoverySettings": "autoprune.search.space.setting_groups",
    "Repeats": "autoprune.front.repeats",
    "Run": "autoprune.front.run",
    "Scaler": "autoprune.task.preprocessing",
    "SchedulePlan": "autoprune.plan.recovery",
    "ScheduleSettings": "autoprune.search.space.setting_groups",
    "SearchBackend": "autoprune.search.backend",
    "SearchSettings": "autoprune.search.space.setting_groups",
    "SpaceSettings": "autoprune.search.space.settings",
    "StorageSettings": "autoprune.search.settings",
    "Structure": "autoprune.structure.stored",
    "StructureSettings": "autoprune.search.space.setting_groups",
    "Study": "autoprune.study.study",
    "StudySettings": "autoprune.search.settings",
    "WorkerSettings": "autoprune.search.settings",
    "Task": "autoprune.task.task",
    "Topology": "autoprune.structure.topology",
    "TrialContext": "autoprune.trial.context",
    "WeightPlan": "autoprune.plan.weights",
    "apply": "autoprune.trial.apply",
    "cut": "autoprune.surgery.cut",
    "discover": "autoprune.trial.apply",
    "evaluate": "autoprune.study.evaluate",
    "explain": "autoprune.explaining.explain",
    "figure": "autoprune.report.plotted",
    "figure_layers": "autoprune.report.plotted",
    "fit_normalize": "autoprune.task.preprocessing",
    "fit_standardize": "autoprune.task.preprocessing",
    "load_safetensors": "autoprune.export.safetensors",
    "main": "autoprune.cli.main",
    "prepare": "autoprune.task.prepare",
    "repeat": "autoprune.study.repeat",
    "structure_of_costs": "autoprune.structure.fitted",
    "structure_of_layers": "autoprune.structure.written",
}

__all__ = ["__version__", *sorted(_WHERE)]  # noqa: PLE0604  # strings, built from the table above


def __getattr__(name: str) -> object:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'autoprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
