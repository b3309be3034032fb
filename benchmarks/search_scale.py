"""What the search costs after many trials: time of `ask` and `tell`, size of the journal, memory of the process.

    python -m benchmarks.search_scale [--counts 300,1000] [--out 8] [--memory 10000] [--keep FOLDER]

A model of numbers (`benchmarks.numbers_model`) is searched by the real `Search` with a journal file and eight proposals
out, which end in any order. Times are processor time of the asks and tells of the last 50 trials before each count; an
ask may first answer proposals that are known. The calls of Python and C functions of an ask are counted, too, which do
not depend on how busy the machine is.

The samplers: the default with a scan (TPE), without one (evolution), and for many groups (evolution), and by name. Each
has trials of its own. `--keep` stores each study in a folder shortly before the first count, and a later
run continues a stored study, so that thousands of trials are run once.
"""

from __future__ import annotations

import gc
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import typer

from autoprune.records.candidate import CandidateRecord
from autoprune.search.journal import JournalSource, restore
from autoprune.search.ledger import Ledger
from autoprune.search.proposal import Proposal
from autoprune.search.search import Search
from autoprune.search.space.space import Space
from autoprune.search.storage import JOURNAL, open_journal
from benchmarks.memory import with_peak
from benchmarks.numbers_model import NumbersModel
from benchmarks.reporting import print_table

#: Groups of most studies.
_GROUPS = 40
#: Trials before a count whose asks and tells are timed; asks whose calls are counted.
_WINDOW, _COUNTED = 50, 3
#: Candidates of the study whose copies fill the memory; asks that are timed after that.
_SHORT, _ASKED = 200, 20
#: File of a study that is kept: its candidates and their damage.
_STUDY = "study.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A study whose search is timed.

    Attributes:
        name: Name of its row.
        sampler: Sampler of the settings.
        groups: Number of groups; _GROUPS where it is 0.
        scanned: Whether there is a scan.
    """

    name: str
    sampler: str
    groups: int = 0
    scanned: bool = True


CASES = (
    Case(name="auto with a scan (tpe)", sampler="auto"),
    Case(name="auto without a scan (evolution)", sampler="auto", scanned=False),
    Case(name="auto with 120 groups (evolution)", sampler="auto", groups=120),
    Case(name="evolution", sampler="evolution"),
    *(Case(name=name, sampler=name) for name in ("nsga2", "nsga3", "qmc", "random")),
)


@dataclass(slots=True)
class Driver:
    """Asks and tells, with as many proposals out at once, which end in any order.

    Attributes:
        search: Search that is driven.
        numbers: Its model.
        out: Proposals that are out.
        asks: Seconds of each ask.
        tells: Seconds of each tell.
    """

    search: Search
    numbers: NumbersModel
    out: int
    asks: list[float] = field(default_factory=list)
    tells: list[float] = field(default_factory=list)
    _waiting: list[Proposal] = field(default_factory=list)
    _order: random.Random = field(default_factory=lambda: random.Random(0))

    def run_to(self, count: int) -> None:
        """Go on until so many candidates are finished."""
        while len(self.search.records) < count and not self.search.exhausted:
            while len(self._waiting) < self.out and self.ask():
                pass
            done = self._waiting.pop(self._order.randrange(len(self._waiting)))
            result = self.numbers.result(self.search, done)
            start = time.process_time()
            self.search.tell(done, result)
            self.tells.append(time.process_time() - start)

    def finish(self) -> None:
        """Tell the proposals that are out."""
        for done in self._waiting:
            self.search.tell(done, self.numbers.result(self.search, done))
        self._waiting.clear()

    def ask(self) -> bool:
        """Ask once; return whether there was a proposal."""
        start = time.process_time()
        proposal = self.search.ask()
        self.asks.append(time.process_time() - start)
        if proposal is not None:
            self._waiting.append(proposal)
        return proposal is not None


def main(
    counts: str = "300,1000",
    out: int = 8,
    memory: int = 10_000,
    only: str = "",
    profile: Path | None = None,
    keep: Path | None = None,
) -> None:
    """Drive a search for each sampler and print what it costs."""
    marks = [int(count) for count in counts.split(",")]
    rows: list[list[str]] = []
    for case in CASES:
        if only in case.name:
            rows += measure(case, marks, (out, _GROUPS), profile, keep)
    print_table(
        f"Asking and telling with {out} proposals out, {_GROUPS} groups: ms, median and 95 %",
        ("sampler", "trials", "ask", "ask, 95 %", "tell", "tell, 95 %", "calls of an ask", "journal, kB a trial"),
        rows,
    )
    if memory:
        print_memory(memory, out, _GROUPS)


def measure(
    case: Case, counts: Sequence[int], shape: tuple[int, int], profile: Path | None = None, keep: Path | None = None
) -> list[list[str]]:
    """Return one row for each number of trials. shape: proposals out, groups; keep: where studies are kept."""
    out, groups = shape
    numbers, rows = NumbersModel(case.groups or groups, case.scanned), []
    kept = None if keep is None else keep / f"{case.name.replace(' ', '_')}-{groups}-{counts[0]}"
    with _driver(numbers, case.sampler, (counts[-1], out), kept) as (driver, journal):
        if kept is not None and not kept.exists():
            driver.run_to(counts[0] - 2 * _WINDOW)
            driver.finish()
            _keep(driver, journal, kept)
        for count in counts:
            driver.run_to(count - _WINDOW)
            driver.asks.clear()
            driver.tells.clear()
            with _profiled(profile, f"{case.name}-{count}"):
                driver.run_to(count)
            times = [_both(driver.asks), _both(driver.tells)]
            size = f"{journal.stat().st_size / 1000 / len(driver.search.state.ledger.trials()):.1f}"
            rows.append([case.name, f"{count:,}", *times[0], *times[1], f"{_calls(driver):,}", size])
            print(*rows[-1], sep=" | ", flush=True)
    return rows


def print_memory(count: int, out: int, groups: int) -> None:
    """Print the memory of a process that goes on with so many candidates: copies of those of a short search."""
    numbers = NumbersModel(groups)
    with _driver(numbers, "auto", (_SHORT, out)) as (driver, _):
        driver.run_to(_SHORT)
        texts = [record.to_json() for record in driver.search.records]
        settings, space = driver.search.state.settings, driver.search.state.space
    texts = [_numbered(texts[number % _SHORT] if number else texts[0], number) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        _write_journal(Path(folder), texts, numbers, space)

        def go_on() -> Driver:
            records = [CandidateRecord.from_json(text) for text in texts]
            ledger = Ledger.of(open_journal(Path(folder)), numbers.problem)
            resumed = Driver(Search(numbers.model, settings, ledger=ledger, records=records), numbers, out)
            for _ in range(out):
                resumed.ask()
            return resumed

        resumed, peak = with_peak(go_on)
        resumed.asks.clear()
        for _ in range(_ASKED):
            resumed.ask()
    print_table(
        f"A search of {count:,} candidates that goes on with {out} proposals, {groups} groups",
        ("peak memory, MB", "of it for each candidate, kB", f"ask, ms, median of {_ASKED}", "ask, 95 %"),
        [[f"{peak / 1e6:.0f}", f"{peak / 1e3 / count:.1f}", *_both(resumed.asks)]],
    )


def _write_journal(folder: Path, texts: Sequence[str], numbers: NumbersModel, space: Space) -> None:
    """Write the journal of finished candidates."""
    source = JournalSource(
        records=[CandidateRecord.from_json(text) for text in texts],
        problem=numbers.problem,
        trial_count=len(texts),
        space=lambda: space,
        excess=lambda _: {},
    )
    open_journal(folder, lambda _: False, partial(restore, source=source))


def _numbered(text: str, number: int) -> str:
    """Return a record under another number; all but the first descend from the dense model."""
    data = json.loads(text)
    start = {} if number == 0 else {"parent": 0, "origin": "sampled", "warm_start": ""}
    return json.dumps({**data, "number": number, **start})


@contextmanager
def _driver(
    numbers: NumbersModel, sampler: str, shape: tuple[int, int], kept: Path | None = None
) -> Iterator[tuple[Driver, Path]]:
    """Yield the driver of a new search, or of one that was kept, and its journal. shape: trials, proposals out."""
    trials, out = shape
    with tempfile.TemporaryDirectory() as folder:
        records: list[CandidateRecord] = []
        if kept is not None and kept.exists():
            shutil.copy(kept / JOURNAL, folder)
            texts, damage = json.loads((kept / _STUDY).read_text())
            records = [CandidateRecord.from_json(text) for text in texts]
            numbers.damage.update({int(number): left for number, left in damage.items()})
        ledger = Ledger.of(open_journal(Path(folder)), numbers.problem)
        settings = numbers.settings(sampler, 2 * trials)
        yield (
            Driver(Search(numbers.model, settings, ledger=ledger, records=records), numbers, out),
            Path(folder) / JOURNAL,
        )


def _keep(driver: Driver, journal: Path, kept: Path) -> None:
    kept.mkdir(parents=True)
    shutil.copy(journal, kept)
    texts = [record.to_json() for record in driver.search.records]
    (kept / _STUDY).write_text(json.dumps([texts, driver.numbers.damage]))


def _both(seconds: Sequence[float]) -> tuple[str, str]:
    return f"{1e3 * statistics.median(seconds):.1f}", f"{1e3 * float(np.quantile(seconds, 0.95)):.1f}"


def _calls(driver: Driver) -> int:
    """Count the calls of functions of an ask: the median of a few."""
    found = []
    for _ in range(_COUNTED):
        gc.collect()
        count = [0]

        def seen(_frame: object, event: str, _argument: object, count: list[int] = count) -> None:
            count[0] += event in ("call", "c_call")

        sys.setprofile(seen)
        try:
            driver.ask()
        finally:
            sys.setprofile(None)
        found.append(count[0])
    return round(statistics.median(found))


@contextmanager
def _profiled(folder: Path | None, name: str) -> Iterator[None]:
    """Write a profile of the block into a folder."""
    if folder is None:
        yield
        return
    import cProfile

    with cProfile.Profile() as found:
        yield
    folder.mkdir(parents=True, exist_ok=True)
    found.dump_stats(folder / f"{name.replace(' ', '_')}.prof")


if __name__ == "__main__":
    typer.run(main)
