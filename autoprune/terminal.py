"""What the command line prints: tables of a front, of a model, and of what is known of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoprune.display import lines, number_text, shortened
from autoprune.front.front import NO_DENSE, Front
from autoprune.front.record import CandidateRecord
from autoprune.plan.weights import WeightPlan, group_pattern
from autoprune.report.findings import share_of_dense
from autoprune.sensitivity.cost_model import CostModel
from autoprune.space.optimizers import described
from autoprune.space.settings import NO_MASKS, SpaceSettings
from autoprune.space.space import reach
from autoprune.study.description import block_rows, group_rows
from autoprune.study.importance import Importances
from autoprune.study.repeats import Repeats
from autoprune.study.solving import Solved
from autoprune.surgery.sparsity import fitting, maskable, unmaskable
from autoprune.trace.topology import Topology


class _SafeConsole(Console):
    """A console on which text is data: no markup, no emoji codes, no terminal escapes; styles are arguments.

    width: where there is no terminal to take it from.
    """

    def __init__(self, *, stderr: bool = False, width: int = 160, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
        if not self.is_terminal:
            self.width = width

    def render_str(self, text: str, **how: object) -> Text:
        """Make any string that is printed, cells and titles of tables among them, a safe Text."""
        return super().render_str(lines(text), **how)  # type: ignore[arg-type]


def safe_console(*, stderr: bool = False, width: int = 160, soft_wrap: bool = False) -> Console:
    """Make a console on which text is data. width: where there is no terminal to take it from."""
    return _SafeConsole(stderr=stderr, width=width, soft_wrap=soft_wrap)


def show_front(front: Front) -> None:
    """The front as a table on standard output, the dense model first."""
    dense = front.dense
    records = [*([dense] if dense is not None and dense not in front.records else []), *front.records]
    console = _SafeConsole()
    if not records:
        console.print("No finished candidate yet.")
        return
    console.print(front_table(front, records))
    if front.dense is None:
        console.print(NO_DENSE, style="yellow")


def show_repeats(repeats: Repeats) -> None:
    """Median and spread over the seeds, then each study, as tables on standard output."""
    console = _SafeConsole()
    summary = repeats.summary()
    table = Table("over the seeds", "median", "low", "high")
    for name, row in summary.iterrows():
        cells = (number_text(float(row[column])) for column in ("median", "low", "high"))
        table.add_row(str(name).replace("_", " "), *cells)
    console.print(table)
    each = repeats.table()
    rows = Table(*(str(name).replace("_", " ") for name in each.columns))
    for line in each.to_numpy().tolist():
        rows.add_row(*map(number_text, line))
    console.print(rows)


def show_candidate(front: Front, record: CandidateRecord) -> None:
    """One candidate's row on standard error, so that standard output holds its number alone."""
    console = _SafeConsole(stderr=True)
    console.print(front_table(front, [record]))


def show_importances(found: Importances) -> None:
    """Shares of the variance and their intervals as a table on standard output, in brackets what chance gives too."""
    console = _SafeConsole()
    for note in found.notes:
        console.print(note)
    if not found.knobs:
        return
    table = Table("knob", title=f"What mattered over {found.trials} trials", title_justify="left")
    for target in found.targets:
        table.add_column(target, justify="right")
    for rows in (found.knobs, found.members):
        for row in rows:
            cells = (row.targets[target] for target in found.targets)
            shown = (console.render_str(str(cell), style="dim" if cell.is_noise else "") for cell in cells)
            table.add_row(row.name, *shown)
        table.add_section()
    console.print(table)
    console.print(
        "Share of the variance of ranks that each explains alone, 68 % interval; in brackets: no more than chance."
    )
    for name, why in found.left_out.items():
        console.print(f"left out: {name}, {why}")


def show_solved(found: Solved) -> None:
    """Widths of a solved allocation as a table on standard output, what they cost, and what to know of them."""
    console = _SafeConsole(width=140)
    console.print(f"Widths at {found.allocation.budget:.1%} of the dense {found.cost}")
    table = Table("group")
    for column in ("dense", "stay", "share"):
        table.add_column(column, justify="right")
    for name, width in found.allocation.widths.items():
        dense = found.channels[name]
        table.add_row(name, str(dense), str(width), f"{width / dense:.0%}")
    console.print(table)
    console.print(
        "Of dense: " + ", ".join(f"{name} {share:.2%}" for name, share in found.shares.items()), highlight=False
    )
    for note in found.notes:
        console.print(note)


def show_topology(topology: Topology, settings: SpaceSettings, kind: str = "") -> None:
    """What `explain` prints. kind: what is predicted."""
    console = _SafeConsole(width=140)
    whole = topology.cost({})
    console.print(
        f"{whole.parameters:,} parameters, {whole.multiply_adds:,} multiply-adds, {whole.size_bytes:,} bytes of weights"
    )
    console.print(_groups_table(topology))
    if topology.blocks:
        console.print(_blocks_table(topology, settings))
    if topology.unprunable:
        console.print(_left_table(topology))
    console.print(_masks_table(topology, settings))
    if topology.groups:
        console.print(_reach_table(topology, settings))
    console.print(described(settings, topology, kind), highlight=False, markup=False)
    if maskable(topology):
        console.print(_sparsest(topology, settings))
        for line in _misfits(topology, settings):
            console.print(line)


def _blocks_table(topology: Topology, settings: SpaceSettings) -> Table:
    missing = [kind for kind in ("blocks", "layers") if kind not in settings.kinds]
    asked = f" with {' or '.join(map(repr, missing))} in kinds" if missing else ""
    table = Table("name", "is a", "parameters", "multiply-adds", title=f"Can be dropped whole{asked}: share that goes")
    table.title_justify = "left"
    for row in block_rows(topology):
        saved = [f"{row[name]:.1%}" for name in ("parameters_saved", "multiply_adds_saved")]
        table.add_row(str(row["name"]), str(row["kind"]), *saved)
    return table


def _left_table(topology: Topology) -> Table:
    table = Table("module", "channels", "why", title="Left alone", title_justify="left")
    alike: dict[tuple[int, str], list[str]] = {}
    for entry in topology.unprunable:
        alike.setdefault((entry.channels, entry.reason), []).append(entry.module)
    for (channels, reason), modules in alike.items():
        table.add_row(shortened(modules), str(channels), reason)
    return table


def _groups_table(topology: Topology) -> Table:
    title = "Can be pruned (share that goes when the group is halved)"
    columns = ("group", "number", "of", "made by", "tensors", "parameters", "multiply-adds")
    table = Table(*columns, title=title, title_justify="left")
    for row in group_rows(topology):
        layers = row["layers"]
        assert isinstance(layers, list)
        table.add_row(
            str(row["name"]),
            str(row["channels"]),
            str(row["kind"]),
            shortened(layers),
            str(row["tensors"]),
            f"{row['parameters_saved_by_half']:.1%}",
            f"{row['multiply_adds_saved_by_half']:.1%}",
        )
    return table


def _masks_table(topology: Topology, settings: SpaceSettings) -> Table:
    """Parameters that masks may be laid on, and the others by the reason why not."""
    title = "Single weights" if "weights" in settings.kinds else 'Single weights (masked with "weights" in kinds)'
    table = Table("tensors", "number", "parameters", "of all", "", title=title, title_justify="left")
    alike: dict[str, list[str]] = {"can be masked": list(maskable(topology))}
    for name, reason in unmaskable(topology).items():
        alike.setdefault(f"no: it {reason}", []).append(name)
    whole = max(topology.cost({}).parameters, 1)
    for verdict, names in alike.items():
        parameters = _only(topology, names).cost({}).parameters
        table.add_row(shortened(names), str(len(names)), f"{parameters:,}", f"{parameters / whole:.1%}", verdict)
    return table


def _only(topology: Topology, names: Sequence[str]) -> Topology:
    """The topology of these tensors alone, for their part of the parameters."""
    tensors = {name: topology.tensors[name] for name in names}
    return replace(topology, tensors=tensors, products=(), contractions=(), blocks=())


def _sparsest(topology: Topology, settings: SpaceSettings) -> str:
    """How few parameters other than zero the masks of the space leave."""
    shares = [
        WeightPlan(pattern=pattern, sparsity=None if group_pattern(pattern) else settings.sparsity[1]).target
        for pattern in settings.patterns
        if pattern != NO_MASKS
    ]
    share, masked = max(shares, default=0.0), _only(topology, maskable(topology))

    def left(widths: Mapping[str, int]) -> str:
        return f"{topology.cost(widths).parameters - round(share * masked.cost(widths).parameters):,}"

    smallest = f", {left(reach(settings, topology)['smallest'])} of the smallest" if topology.groups else ""
    return f"With masks of {share:.0%} zeros about {left({})} parameters of the largest model are not zero{smallest}."


def _misfits(topology: Topology, settings: SpaceSettings) -> list[str]:
    """Patterns of the space that leave some weights whole, with the rule."""
    among = len(maskable(topology))
    fit = {pattern: len(fitting(pattern, topology)) for pattern in settings.patterns if pattern != NO_MASKS}
    return [
        f"{pattern} masks something of {count} of these {among} tensors: "
        f"{'N:M needs M inputs' if group_pattern(pattern) else 'one block of each always stays'}."
        for pattern, count in fit.items()
        if count < among
    ]


def _reach_table(topology: Topology, settings: SpaceSettings) -> Table:
    table = Table(
        "", "parameters", "multiply-adds", "of dense", "bytes", title="Costs within reach", title_justify="left"
    )
    dense = CostModel(topology, settings.cost).dense
    for label, widths in reach(settings, topology).items():
        cost = topology.cost(widths)
        table.add_row(
            label,
            f"{cost.parameters:,}",
            f"{cost.multiply_adds:,}",
            f"{getattr(cost, settings.cost) / dense:.1%}",
            f"{cost.size_bytes:,}",
        )
    return table


def front_table(front: Front, records: list[CandidateRecord] | tuple[CandidateRecord, ...]) -> Table:
    """Make the table of some candidates, one row each."""
    name = front.quality_name
    tested = any(record.test is not None for record in records)
    sparse = any(record.search.nonzero_parameters < record.search.parameters for record in records)
    table = Table("candidate", "origin", f"{name} (search)")
    for column in [
        *([f"{name} (test)"] if tested else []),
        "parameters",
        *(["not zero"] if sparse else []),
        "bytes",
        "multiply-adds",
        "of dense",
        "latency ms",
        "ratio to dense",
    ]:
        table.add_column(column, justify="right")
    for record in records:
        search, latency = record.search, record.search.latency
        cells = [str(record.number), record.origin, f"{search.quality:.4f} ± {search.quality_error:.4f}"]
        if tested:
            cells.append("" if record.test is None else f"{record.test.quality:.4f} ± {record.test.quality_error:.4f}")
        cells += [f"{search.parameters:,}", *([f"{search.nonzero_parameters:,}"] if sparse else [])]
        cells += [f"{search.size_bytes:,}", f"{search.multiply_adds:,}", share_of_dense(front, record)]
        cells += (
            ["", ""]
            if latency is None
            else [
                f"{front.cost(record, 'latency_ms'):.3f}",
                f"{latency.ratio:.2f} ({latency.ratio_low:.2f}-{latency.ratio_high:.2f})",
            ]
        )
        table.add_row(*cells)
    return table
