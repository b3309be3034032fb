"""Exportable: a finished candidate as every format takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from autoprune.errors import ConfigurationError, error_message
from autoprune.front.run import Run
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.records.measurement import Measurement
from autoprune.structure.stored import Structure
from autoprune.structure.topology import Topology
from autoprune.study.store import check_sound, load_weights
from autoprune.surgery.cut import rebuild
from autoprune.task.data import Inputs
from autoprune.task.prepare import PreparedTask, prepare
from autoprune.task.task import Task
from autoprune.trial.candidate import Candidate
from autoprune.trial.context import TrialContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Exportable:
    """A finished candidate, from a run folder or straight from a trial.

    Attributes:
        name: Name of the study; "" without one.
        number: Number of the candidate; None without a study.
        structure: Fingerprint of the dense model's structure.
        topology: Positions of the channels; None in a run of a version that did not store them.
        kept: Channels and blocks that stay.
        plan: Plan of the trial.
        search: Measurement on the search split.
        test: Measurement on the test split; None without.
        weights: Name -> tensor.
        model: Model in eval mode; None where a run was opened without its task.
        example_inputs: Inputs of one call; None where there is no model.
    """

    name: str
    number: int | None
    structure: str
    topology: Structure | None
    kept: KeptChannels
    plan: PruningPlan
    search: Measurement
    test: Measurement | None
    weights: Mapping[str, Tensor] = field(repr=False)
    model: nn.Module | None = field(default=None, repr=False)
    example_inputs: Inputs | None = field(default=None, repr=False)

    @classmethod
    def of_run(cls, run: Run, number: int, task: Task | None = None) -> Exportable:
        """Read a candidate of a run. Needs neither the study script nor the model, unless a format takes a live model.

        Args:
            run: An opened run.
            number: Number of the candidate.
            task: Task of the study, for the model; None for its weights alone.

        Returns:
            The candidate.

        Raises:
            NotFoundError: There is no such candidate, or its weights were deleted.
            StorageError: The weights cannot be read.
        """
        record, folder = run.front().get(number), run.folder
        weights = load_weights(folder, number)
        check_sound(folder, weights, folder.weights_file(number).place)
        topology, kept = folder.read_topology(), record.channels
        prepared = None if task is None else prepare(task)
        return cls(
            name=run.manifest.name,
            number=number,
            structure=run.manifest.structure,
            topology=topology,
            kept=kept,
            plan=record.plan,
            search=record.search,
            test=record.test,
            weights=weights,
            model=None if prepared is None else _rebuilt(prepared, topology, kept, weights),
            example_inputs=None if prepared is None else prepared.example_inputs,
        )

    @classmethod
    def of_candidate(cls, candidate: Candidate, context: TrialContext) -> Exportable:
        """Take the result of `evaluate_plan`, without a study.

        Args:
            candidate: A finished candidate.
            context: Context of its trial.

        Returns:
            The candidate.
        """
        return cls(
            name="",
            number=None,
            structure=context.structure,
            topology=context.topology.describe(),
            kept=candidate.kept,
            plan=candidate.plan,
            search=candidate.measurement,
            test=None,
            weights=candidate.model.state_dict(),
            model=candidate.model.eval(),
            example_inputs=context.task.example_inputs,
        )

    def live(self) -> tuple[nn.Module, Inputs]:
        """Return the model and its example inputs, for formats that hold the whole model.

        Returns:
            Both.

        Raises:
            ConfigurationError: The candidate came without its model.
        """
        if self.model is None or self.example_inputs is None:
            wants = "be given the study script"
            raise ConfigurationError(
                error_message("a format that holds the whole model", wants, "none", "Add --script.")
            )
        return self.model, self.example_inputs


def check_ending(to: Path, ending: str) -> None:
    """Check the ending of a file to write.

    Args:
        to: The file.
        ending: The ending of its format.

    Raises:
        ConfigurationError: It has another one.
    """
    if to.suffix != ending:
        raise ConfigurationError(error_message("--to", f"end in {ending}", str(to)))


def _rebuilt(
    task: PreparedTask, stored: Structure | None, kept: KeptChannels, weights: Mapping[str, Tensor]
) -> nn.Module:
    topology = TrialContext.of(task).topology if stored is None else Topology.of(stored, "the run")
    return rebuild(task.dense, topology, kept, weights).eval()
