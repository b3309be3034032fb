"""After the search: measure latencies in doubt again, and the front on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import Latency
from autoprune.records.run_folder import RunFolder
from autoprune.study.store import load_parent
from autoprune.study.untested import UntestedCandidates
from autoprune.surgery.cut import cut
from autoprune.trial.candidate import measure_test
from autoprune.trial.context import TrialContext

#: Latencies in a row that stay in doubt, after which the machine is taken to be busy for longer.
BUSY = 3


def measured_latencies(context: TrialContext, record: CandidateRecord) -> Mapping[str, Latency]:
    """Measure the latencies of a candidate, which do not depend on its weights.

    Args:
        context: Context of the trials.
        record: The candidate.

    Returns:
        Name of a latency profile -> latency.
    """
    kept = record.channels
    return context.costs.latencies(cut(context.task.dense, context.topology, kept), kept, measured=True)


def measure_predicted_latencies(
    context: TrialContext,
    folder: RunFolder,
    records: list[CandidateRecord],
    front: Callable[[], Front],
    measure: Callable[[int], Mapping[str, Latency]] | None,
    follow: Callable[[int, int], None],
) -> None:
    """Measure the latencies of the front that are predicted, until all of the front is measured.

    Candidates that are slower than predicted leave the front, and others may take their place.

    Args:
        context: Context of the trials.
        folder: Run folder.
        records: All finished candidates; measured ones are replaced in place.
        front: Returns their front.
        measure: Measures a candidate on another machine; None measures in this process.
        follow: Called with (done, total) candidates.
    """
    done = 0
    while wanted := [record for record in front().members if record.search.predicted]:
        follow(done, done + len(wanted))
        record = wanted[0]
        found = measure(record.number) if measure is not None else measured_latencies(context, record)
        folder.write_latencies(record.number, found)
        records[next(place for place, one in enumerate(records) if one.number == record.number)] = (
            record.with_latencies(found)
        )
        done += 1
        follow(done, done + len(wanted) - 1)


def measure_doubtful_latencies(
    context: TrialContext,
    folder: RunFolder,
    records: list[CandidateRecord],
    follow: Callable[[int, int], None],
) -> None:
    """Measure again the latencies that decide nothing, as they are in doubt, of candidates that can be on the front.

    Args:
        context: Context of the trials.
        folder: Run folder.
        records: All finished candidates; measured ones are replaced in place.
        follow: Called with (done, total) candidates.
    """
    wanted = [place for place, record in enumerate(records) if record.selectable and _in_doubt(record)]
    busy = 0
    for count, place in enumerate(wanted):
        follow(count, len(wanted))
        record = records[place]
        found = measured_latencies(context, record)
        folder.write_latencies(record.number, found)
        records[place] = record.with_latencies(found)
        busy = busy + 1 if _in_doubt(records[place]) else 0
        if busy == BUSY:
            break
    if wanted:
        follow(len(wanted), len(wanted))


def _in_doubt(record: CandidateRecord) -> bool:
    return any(not latency.trusted for latency in record.search.latencies.values())


def measure_tests(
    context: TrialContext,
    folder: RunFolder,
    records: list[CandidateRecord],
    front: Front,
    untested: UntestedCandidates,
    follow: Callable[[int, int], None],
) -> None:
    """Measure the front, the dense model and the uniform sweep on the test split.

    Args:
        context: Context of the trials.
        folder: Run folder.
        records: All finished candidates; measured ones are replaced in place.
        front: Their front.
        untested: Collects the candidates that cannot be measured.
        follow: Called with (done, total) candidates.
    """
    members = {record.number for record in front.members}
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
