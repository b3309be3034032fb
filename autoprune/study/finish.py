"""After the search: measure latencies in doubt again, and the front on the test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import LaterLatencies
from autoprune.records.run_folder import RunFolder
from autoprune.study.store import load_parent
from autoprune.study.untested import UntestedCandidates
from autoprune.surgery.cut import cut
from autoprune.trial.candidate import measure_test
from autoprune.trial.context import TrialContext

#: Latencies in a row that stay in doubt, after which the machine is taken to be busy for longer.
BUSY = 3


def measured_latencies(context: TrialContext, record: CandidateRecord) -> LaterLatencies:
    """Measure the latencies and the energy of a candidate, by a model of its widths.

    Args:
        context: Context of the trials.
        record: The candidate.

    Returns:
        Latencies of all profiles, and the energy where it is measured.
    """
    kept, costs = record.channels, context.costs
    model = cut(context.task.dense, context.topology, kept)
    latencies = costs.latencies(model, kept, measured=True)
    return LaterLatencies(latencies=latencies, energy=costs.energy(model, kept, measured=True))


def is_unmeasured(context: TrialContext, record: CandidateRecord) -> bool:
    """Tell whether a member of the front has to be measured at the end of a run.

    Args:
        context: Context of the trials.
        record: The candidate.

    Returns:
        Whether a latency is predicted, or the energy is missing that can be read here.
    """
    return bool(record.search.predicted) or (record.search.energy is None and context.costs.measures_energy)


def measure_predicted_latencies(
    context: TrialContext,
    folder: RunFolder,
    records: list[CandidateRecord],
    front: Callable[[], Front],
    measure: Callable[[int], LaterLatencies] | None,
    follow: Callable[[int, int], None],
) -> None:
    """Measure the latencies of the front that are predicted, and missing energy, until all of the front is measured.

    Candidates that are slower than predicted leave the front, and others may take their place.

    Args:
        context: Context of the trials.
        folder: Run folder.
        records: All finished candidates; measured ones are replaced in place.
        front: Returns their front.
        measure: Measures a candidate on another machine; None measures in this process.
        follow: Called with (done, total) candidates.
    """
    done = set[int]()
    while wanted := [one for one in front().members if one.number not in done and is_unmeasured(context, one)]:
        follow(len(done), len(done) + len(wanted))
        record = wanted[0]
        found = measure(record.number) if measure is not None else measured_latencies(context, record)
        place = next(place for place, one in enumerate(records) if one.number == record.number)
        records[place] = _replaced(folder, record, found)
        done.add(record.number)
        follow(len(done), len(done) + len(wanted) - 1)


def _replaced(folder: RunFolder, record: CandidateRecord, found: LaterLatencies) -> CandidateRecord:
    """Store later latencies and a later energy; an energy that could not be read now stays."""
    replaced = record.with_latencies(found.latencies, found.energy)
    folder.write_latencies(record.number, found.latencies, replaced.search.energy)
    return replaced


def measure_doubtful_latencies(
    context: TrialContext,
    folder: RunFolder,
    records: list[CandidateRecord],
    follow: Callable[[int, int], None],
) -> None:
    """Measure latencies and energies in doubt again, which decide nothing, of candidates that can be on the front.

    Args:
        context: Context of the trials.
        folder: Run folder.
        records: All finished candidates; measured ones are replaced in place.
        follow: Called with (done, total) candidates.
    """
    wanted = [place for place, record in enumerate(records) if record.selectable and _in_doubt(context, record)]
    busy = 0
    for count, place in enumerate(wanted):
        follow(count, len(wanted))
        record = records[place]
        records[place] = _replaced(folder, record, measured_latencies(context, record))
        busy = busy + 1 if _in_doubt(context, records[place]) else 0
        if busy == BUSY:
            break
    if wanted:
        follow(len(wanted), len(wanted))


def _in_doubt(context: TrialContext, record: CandidateRecord) -> bool:
    latencies = [one for name, one in record.search.latencies.items() if name not in context.untimed]
    return any(not one.trusted for one in (*latencies, record.search.energy) if one is not None)


def measure_tests(
    context: TrialContext,
    folder: RunFolder,
    records: list[CandidateRecord],
    front: Front,
    untested: UntestedCandidates,
    follow: Callable[[int, int], None],
) -> None:
    """Measure the front, the dense model and the uniform sweep on the test split.

    A candidate whose place on the front is in doubt may be chosen, so it is measured, too.

    Args:
        context: Context of the trials.
        folder: Run folder.
        records: All finished candidates; measured ones are replaced in place.
        front: Their front.
        untested: Collects the candidates that cannot be measured.
        follow: Called with (done, total) candidates.
    """
    members = {record.number for record in (*front.members, *front.undecided)}
    wanted = [
        position
        for position, record in enumerate(records)
        if record.test is None and (record.number in members or record.origin.is_baseline)
    ]
    if wanted:
        follow(0, len(wanted))
    for count, position in enumerate(wanted, 1):
        if untested.hopeless:
            break
        record, measured = records[position], None
        with untested.kept(record.number):
            measured = measure_test(context, load_parent(context, folder, record).model, record.search)
        if measured is not None:
            folder.write_test(record.number, measured)
            records[position] = replace(record, test=measured)
        follow(count, len(wanted))
    untested.warn()
