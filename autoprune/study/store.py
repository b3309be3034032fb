"""Records and weights of candidates in a run folder."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from autoprune.display import join_faults
from autoprune.errors import StorageError, error_message
from autoprune.records.advice import advises_doctor
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.search.proposal import Result
from autoprune.surgery.cut import rebuild
from autoprune.task.checkpoint import parse_weights, read_weights, serialize_smallest
from autoprune.task.clone import clone_with
from autoprune.task.soundness import is_finite, value_faults
from autoprune.trial.candidate import Candidate
from autoprune.trial.context import Parent, TrialContext


def _note(candidate: Candidate) -> str:
    """Return why no trial may start from a candidate, although its losses were finite."""
    return "" if all(map(is_finite, candidate.model.parameters())) else "weights that are not finite"


def result_of(candidate: Candidate) -> Result:
    """Return the plain data of a finished candidate.

    Args:
        candidate: Result of the evaluation.

    Returns:
        What a search is told.
    """
    return Result(
        measurement=candidate.measurement,
        kept=candidate.kept,
        work=candidate.work,
        seconds=candidate.seconds,
        note=candidate.note or _note(candidate),
        rungs=candidate.rungs,
        fidelity=candidate.fidelity,
    )


def store_candidate(folder: RunFolder, record: CandidateRecord, model: nn.Module) -> None:
    """Store a candidate atomically.

    The weights are the file whose length `measure.cost.stored_bytes` gives.

    Args:
        folder: Run folder.
        record: Record of the candidate.
        model: Its model.
    """
    folder.write_candidate(record, serialize_smallest(model.state_dict()))


def load_weights(folder: RunFolder, number: int) -> dict[str, Tensor]:
    """Read the stored weights of a candidate.

    Args:
        folder: Run folder.
        number: Number of the candidate.

    Returns:
        Name -> tensor.

    Raises:
        NotFoundError: The weights are missing.
        StorageError: The weights cannot be read, or differ from the stored ones.
    """
    file = folder.weights_file(number)
    if not file.path.exists() and not file.is_stored:
        raise file.missing_error()
    manifest = folder.read_study() if folder.holds_study else None
    largest = None if manifest is None else manifest.bytes
    uploaded = file.read_uploaded()
    if uploaded is not None:
        return parse_weights(uploaded, file.place, largest)
    with advises_doctor(folder.path):
        weights, right = read_weights(file.path, largest), file.has_right_digest()
        if right:
            return weights
        check_sound(folder, weights, str(file.path))
        if right is False:
            raise file.digest_error()
        return weights


def check_sound(folder: RunFolder, weights: Mapping[str, Tensor], where: str) -> None:
    """Check that weights are finite and variances are not negative.

    Args:
        folder: Run folder.
        weights: Name -> tensor.
        where: Path or URL of the file, for the message.

    Raises:
        StorageError: The weights cannot be used.
    """
    faults = value_faults(weights, folder.read_study().not_finite if folder.holds_study else None)
    if faults:
        raise StorageError(
            error_message(where, "hold weights that are finite, and variances >= 0", join_faults(faults))
        )


def load_parent(context: TrialContext, folder: RunFolder, record: CandidateRecord) -> Parent:
    """Load a stored candidate as a parent.

    Args:
        context: Context of the trials.
        folder: Run folder.
        record: Candidate to load.

    Returns:
        The parent: its model and kept channels.

    Raises:
        NotFoundError: The weights are missing.
        StorageError: The weights are damaged.
    """
    kept = record.channels
    if record.origin == "dense":
        return Parent(number=record.number, model=clone_with(context.task.dense), kept=kept)
    model = rebuild(context.task.dense, context.topology, kept, load_weights(folder, record.number))
    return Parent(number=record.number, model=model, kept=kept)
