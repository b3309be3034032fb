"""Break one line of the package at a time, and tell whether the tests of the default run notice.

    python -m benchmarks.mutations              each mutation against the tests that should notice it
    python -m benchmarks.mutations --whole      each against the whole default run
    python -m benchmarks.mutations --only cut   the mutations whose name holds "cut"

A mutation is a text that stands once in the package, whichever file it is in, and what replaces it. It is applied to a
copy of the tree; the tree itself is never changed. The exit code is 1 when a mutation is not noticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "autoprune"
#: Exit codes of pytest: tests failed, and the collection failed.
_NOTICED = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A line that is broken.

    Attributes:
        name: What it breaks.
        old: Text that stands exactly once in the package.
        new: Text in its place.
        tests: Files and folders of tests, one of which should notice.
    """

    name: str
    old: str
    new: str
    tests: tuple[str, ...]


_STRUCTURE = "tests/conformance/test_structure.py"

MUTATIONS = (
    Mutation(
        name="tracer rule: softmax over channels is not noted",
        old="    graph.note_reduced(axes[dim])\n    for result in tensors_in(out):",
        new="    for result in tensors_in(out):",
        tests=("tests/unit/trace/test_trace.py", "tests/unit/surgery/test_attention.py", _STRUCTURE),
    ),
    Mutation(
        name="tracer rule: axes after space are taken for channels",
        old="graph.put(result, [*axes[:kept], *([None] * (result.ndim - kept))])",
        new="graph.put(result, [*axes[: kept - 1], *([None] * (result.ndim - kept + 1))])",
        tests=("tests/unit/trace/test_trace.py", _STRUCTURE),
    ),
    Mutation(
        name="index map: columns removed from the wrong end of a member",
        old="[removed].reshape(-1)] = True",
        new="[removed.flip(0)].reshape(-1)] = True",
        tests=("tests/unit/surgery/test_cut.py", "tests/properties"),
    ),
    Mutation(
        name="cut: positions of a parent are taken for those of the dense model",
        old="where = torch.searchsorted(before, alive)",
        new="where = alive.clamp(max=len(before) - 1)",
        tests=("tests/properties", "tests/unit/surgery/test_cut.py"),
    ),
    Mutation(
        name="mask: an atom of a product is silenced where one of its positions stays",
        old="gone[np.setdiff1d(union_find.atoms_of(nodes[~stays]), union_find.atoms_of(nodes[stays]))] = True",
        new="gone[union_find.atoms_of(nodes[~stays])] = True",
        tests=("tests/unit/surgery/test_attention.py", _STRUCTURE),
    ),
    Mutation(
        name="score formula: linf is a mean",
        old='torch.stack([w.abs().amax(1) for w in producing_weights(group, signals, "linf")]).amax(0)',
        new='torch.stack([w.abs().amax(1) for w in producing_weights(group, signals, "linf")]).mean(0)',
        tests=("tests/unit/criteria/test_more_weights.py", "tests/conformance/test_criteria.py"),
    ),
    Mutation(
        name="schedule: cubic is quadratic",
        old="final * (1.0 - left * left * left)",
        new="final * (1.0 - left * left)",
        tests=("tests/unit/recovery/test_schedules.py",),
    ),
    Mutation(
        name="learning rate: warm restarts begin a fourth cycle",
        old="T_0=max(1, math.ceil(steps / 7))",
        new="T_0=max(1, steps // 7)",
        tests=("tests/unit/recovery/test_learning_rate.py", "tests/conformance/test_schedules.py"),
    ),
    Mutation(
        name="kept channels: the last channel of a group may be one too many",
        old="if indices[-1] >= known[name]:",
        new="if indices[-1] > known[name]:",
        tests=("tests/unit/surgery/test_cut.py", "tests/unit/criteria/test_select.py"),
    ),
    Mutation(
        name="kept channels: the lowest scores stay",
        old="best = torch.topk(scores, width).indices",
        new="best = torch.topk(scores, width, largest=False).indices",
        tests=("tests/unit/criteria/test_select.py",),
    ),
    Mutation(
        name="codec: a later version is read",
        old="if type(found) is not int or not 1 <= found <= form.version:",
        new="if type(found) is not int or not 1 <= found:",
        tests=("tests/unit/test_codec.py", "tests/unit/plan"),
    ),
    Mutation(
        name="run folder: a candidate is written in its place, not beside it",
        old="""    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
""",
        new="""    temporary = final.with_name("nothing")
    try:
        shutil.rmtree(final, ignore_errors=True)
        final.mkdir(parents=True)
        yield final
""",
        tests=("tests/faults/test_kill.py",),
    ),
    Mutation(
        name="journal: a torn last line stays",
        old='end, left = data.rfind(b"\\n") + 1, None',
        new="end, left = len(data), None",
        tests=("tests/unit/study/test_study_resume.py", "tests/unit/study/test_journal.py"),
    ),
    Mutation(
        name="front: the lower quality is the better one",
        old='return -value if self.better == "higher" else value',
        new='return -value if self.better == "lower" else value',
        tests=("tests/unit/front",),
    ),
    Mutation(
        name="front: equal points are all on it",
        old="moocore.is_nondominated(points[finite], keep_weakly=False)",
        new="moocore.is_nondominated(points[finite], keep_weakly=True)",
        tests=("tests/unit/front",),
    ),
    Mutation(
        name="limits: a share of dense is a plain number",
        old="return Limit(name=name, objective=shares[rest], share=True)",
        new="return Limit(name=name, objective=shares[rest])",
        tests=("tests/unit/front", "tests/unit/records", "tests/unit/study/test_limits.py"),
    ),
    Mutation(
        name="lineage: of equal parents the earlier one",
        old="cheapest = sorted(records, key=lambda record: (record.search.multiply_adds, -record.number))",
        new="cheapest = sorted(records, key=lambda record: (record.search.multiply_adds, record.number))",
        tests=("tests/unit/study/test_lineage.py",),
    ),
    Mutation(
        name="solver: the step with the largest loss first",
        old="best = int(np.argmin(prices))",
        new="best = int(np.argmax(np.where(np.isfinite(prices), prices, -1.0)))",
        tests=("tests/unit/sensitivity/test_solver.py",),
    ),
    Mutation(
        name="rounding: of two flips the worst one",
        old="nearest = int(np.argmin(np.abs(after)))",
        new="nearest = int(np.argmax(np.abs(after)))",
        tests=("tests/unit/sensitivity/test_rounding.py",),
    ),
    Mutation(
        name="early stopping: candidates of a user may be stopped",
        old="    if not proposal.origin.is_stoppable:\n        return False\n",
        new="",
        tests=("tests/unit/search", "tests/unit/study/test_early_stopping.py"),
    ),
    Mutation(
        name="early-stopping rule: the bound is the worst residual",
        old="residuals[min(math.ceil((count + 1) * CONFIDENCE), count) - 1]",
        new="residuals[0]",
        tests=("tests/unit/study/test_early_stopping.py", "tests/conformance/test_early_stopping.py"),
    ),
    Mutation(
        name="report: text is not escaped",
        old="autoescape=True",
        new="autoescape=False",
        tests=("tests/unit/report",),
    ),
    Mutation(
        name="command line: wrong input exits with 1",
        old="            fail(str(error), 2)\n        except AutopruneError",
        new="            fail(str(error), 1)\n        except AutopruneError",
        tests=("tests/faults/test_wrong_input.py",),
    ),
)


def apply(mutation: Mutation, tree: Path) -> None:
    """Apply a mutation to a copy of the tree; ValueError unless its text stands once in the package."""
    found = [path for path in sorted((tree / PACKAGE).rglob("*.py")) if mutation.old in path.read_text()]
    if len(found) != 1 or found[0].read_text().count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: its text stands in {len(found)} files, or more than once; mend the list.")
    found[0].write_text(found[0].read_text().replace(mutation.old, mutation.new))


def copy_tree(to: Path) -> None:
    """Copy the tracked files of the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def noticed(mutation: Mutation, whole: bool) -> tuple[bool, str]:
    """Run the tests on a mutated copy; return whether they failed, and pytest's summary of the failure."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        apply(mutation, tree)
        tests = () if whole else tuple(path for path in mutation.tests if (tree / path).exists())
        if not (tests or whole):
            raise ValueError(f"{mutation.name}: none of {', '.join(mutation.tests)} exists; mend the list.")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        result = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, env=environment)
    if result.returncode not in (0, *_NOTICED):
        raise RuntimeError(f"pytest itself failed:\n{result.stdout}\n{result.stderr}")
    failures = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return result.returncode in _NOTICED, failures[0][:150] if failures else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try each mutation and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="Text in the names of the mutations to try.")
    parser.add_argument("--whole", action="store_true", help="Run the whole default run for each.")
    options = parser.parse_args(arguments)
    missed = []
    for mutation in (one for one in MUTATIONS if options.only in one.name):
        start = time.monotonic()
        caught, by = noticed(mutation, options.whole)
        seconds = time.monotonic() - start
        print(f"{'caught' if caught else 'NOT CAUGHT':10}  {seconds:4.0f} s  {mutation.name}  {by}", flush=True)
        missed += [] if caught else [mutation.name]
    print(f"{len(missed)} not caught" + "".join(f"\n  {name}" for name in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
