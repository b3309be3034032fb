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
    from autoprune.search.settings import MeasureSettings as MeasureSettings
    from autoprune.search.settings import StorageSettings as StorageSettings
    from autoprune.search.settings import StudySettings as StudySettings
    from autoprune.search.space.setting_groups import MaskSettings as MaskSettings
    from autoprune.search.space.setting_groups import RecoverySettings as RecoverySettings
    from autoprune.search.space.setting_groups import ScheduleSettings as ScheduleSettings
    from autoprune.search.space.setting_groups import SearchSettings as SearchSettings
    from autoprune.search.space.setting_groups import StructureSettings as StructureSettings
    from autoprune.search.space.settings import SpaceSettings as SpaceSettings
    from autoprune.study.progress import Progress as Progress
    from autoprune.study.repeat import repeat as repeat
    from autoprune.study.study import Study as Study
    from autoprune.task.prepare import PreparedTask as PreparedTask
    from autoprune.task.prepare import prepare as prepare
    from autoprune.task.preprocessing import Scaler as Scaler
    from autoprune.task.preprocessing import fit_normalize as fit_normalize
    from autoprune.task.preprocessing import fit_standardize as fit_standardize
    from autoprune.task.task import Task as Task

__version__ = "0.1.0"

try:
    #: Working directory when autoprune was first imported: a script that is run by itself may change it before main().
    STARTED_IN: Path | None = Path.cwd()
except OSError:  # it was removed
    STARTED_IN = None

_WHERE = {
    "BlockPlan": "autoprune.plan.allocation",
    "Explanation": "autoprune.explaining.explanation",
    "Front": "autoprune.front.front",
    "GroupPlan": "autoprune.plan.allocation",
    "LatencyProfile": "autoprune.records.profile",
    "Limits": "autoprune.records.limits",
    "PreparedTask": "autoprune.task.prepare",
    "Progress": "autoprune.study.progress",
    "PruningPlan": "autoprune.plan.plan",
    "RankingPlan": "autoprune.plan.allocation",
    "AveragingPlan": "autoprune.plan.recovery",
    "DistillationPlan": "autoprune.plan.recovery",
    "MaxNormPlan": "autoprune.plan.recovery",
    "RecalibrationPlan": "autoprune.plan.recovery",
    "ReconstructionPlan": "autoprune.plan.recovery",
    "RecoveryPlan": "autoprune.plan.recovery",
    "Run": "autoprune.front.run",
    "Scaler": "autoprune.task.preprocessing",
    "Repeats": "autoprune.front.repeats",
    "SchedulePlan": "autoprune.plan.recovery",
    "MaskSettings": "autoprune.search.space.setting_groups",
    "RecoverySettings": "autoprune.search.space.setting_groups",
    "ScheduleSettings": "autoprune.search.space.setting_groups",
    "SearchSettings": "autoprune.search.space.setting_groups",
    "StructureSettings": "autoprune.search.space.setting_groups",
    "SpaceSettings": "autoprune.search.space.settings",
    "Study": "autoprune.study.study",
    "MeasureSettings": "autoprune.search.settings",
    "StorageSettings": "autoprune.search.settings",
    "StudySettings": "autoprune.search.settings",
    "Task": "autoprune.task.task",
    "WeightPlan": "autoprune.plan.weights",
    "explain": "autoprune.explaining.explain",
    "fit_normalize": "autoprune.task.preprocessing",
    "fit_standardize": "autoprune.task.preprocessing",
    "load_safetensors": "autoprune.export.safetensors",
    "main": "autoprune.cli.main",
    "prepare": "autoprune.task.prepare",
    "repeat": "autoprune.study.repeat",
}

__all__ = ["__version__", *sorted(_WHERE)]  # noqa: PLE0604  # strings, built from the table above


def __getattr__(name: str) -> object:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'autoprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
