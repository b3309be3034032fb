"""Identity of a study of a task: its manifest, its problem, and the blocks that it began with."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from autoprune.display import summarize_names
from autoprune.errors import AutopruneWarning
from autoprune.records.manifest import Manifest
from autoprune.records.problem import Problem
from autoprune.search.identity import make_problem, manifest_of
from autoprune.search.settings import StudySettings
from autoprune.task.checkpoint import bytes_of, serialize
from autoprune.task.prepare import PreparedTask
from autoprune.task.soundness import is_finite
from autoprune.trial.context import TrialContext


def new_manifest(context: TrialContext, settings: StudySettings, name: str) -> dict[str, object]:
    """Return the manifest of a study, which suffices for the front, the report and `solve` without the script.

    Args:
        context: Context of the trials.
        settings: Settings of the study.
        name: Name for people.

    Returns:
        JSON-ready data, see `Manifest`.
    """
    weights = context.task.dense.state_dict()
    own = {
        "structure": context.structure,
        "weights": weights_fingerprint(weights),
        "not_finite": [name for name, tensor in weights.items() if not is_finite(tensor)],
        "bytes": bytes_of(weights),
    }
    return manifest_of(name, context.topology, settings, problem_of(context.task, settings), own)


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Compute the fingerprint of a model's weights.

    Args:
        weights: Name -> tensor.

    Returns:
        Sixteen hexadecimal digits.
    """
    return hashlib.sha256(serialize(weights)).hexdigest()[:16]


def problem_of(task: PreparedTask, settings: StudySettings) -> Problem:
    """Return the problem of a new study.

    Args:
        task: Task of the study.
        settings: Settings of the study.

    Raises:
        UnknownNameError: The task has no such objective or limit.
        ConfigurationError: No cost is an objective, or a metric is limited from its better side.
    """
    return make_problem(settings, task.quality, task.higher_is_better, task.directions)


def without_new_blocks(context: TrialContext, stored: Manifest) -> TrialContext:
    """Leave out blocks that were not known when the study began, so that its choices stay the same.

    Args:
        context: Context with the blocks that are found now.
        stored: Manifest of the study.

    Returns:
        Context with the study's blocks. A warning names the others.
    """
    known = {row.name for row in stored.blocks}
    began = tuple(block for block in context.topology.blocks if block.name in known)
    later = [block.name for block in context.topology.blocks if block.name not in known]
    if not later:
        return context
    warnings.warn(
        f"{stored.name} chooses from the blocks and layers that it began with. Since then {summarize_names(later)} "
        "can go, too: a new study searches them as well.",
        AutopruneWarning,
        stacklevel=4,
    )
    return replace(context, topology=replace(context.topology, blocks=began))
