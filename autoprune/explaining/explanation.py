"""Define the explanation of a model and a search space, which prints itself as text."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autoprune.codec import to_plain_object
from autoprune.display import first_names
from autoprune.explaining.parts import Part, Reach, Section, Stays, Weights
from autoprune.records.left_alone import Cause, Place, causes
from autoprune.records.manifest import UnprunableModule
from autoprune.report.terminal import safe_console, show_tables
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.absent import sentence_about, title
from autoprune.structure.cost import Cost

if TYPE_CHECKING:
    from rich.console import Console

#: Number of layers shown for one place, and of places for one reason, unless all are asked for.
_FEW = 3
#: Footnote for parts that are not exact.
_NOT_EXACT = (
    "Not exact: the layer is replaced by its input, which no setting of its weights would do. It is proved that the "
    "model runs without it; the effect on the quality is not known."
)
#: Width of a line without a terminal, in characters; longer names exceed it.
_WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The result of `explain`.

    Attributes:
        task: The task, in words.
        model: Cost of the dense model on the example inputs.
        space: Settings of the search space.
        sections: Parts that can be pruned, by kind.
        weights: Parameters by whether they can be masked.
        left_alone: Layers of which some channels stay, with reason, place and remedy.
        reach: The smallest, a middle and the largest model within reach; empty if only masks are searched.
        notes: Further remarks, in sentences.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from autoprune import SpaceSettings
        >>> from autoprune.explaining.explain import explain_topology
        >>> from autoprune.proof.discover import discover_structure
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
        >>> found = explain_topology(discover_structure(model, torch.randn(3, 4)), SpaceSettings())
        >>> found.sections[0].parts[0].name
        '0'
    """

    task: str = ""
    model: Cost
    space: SpaceSettings
    sections: tuple[Section, ...]
    weights: tuple[Weights, ...]
    left_alone: tuple[UnprunableModule, ...]
    reach: tuple[Reach, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return self.text()

    def text(self, *, everything: bool = False) -> str:
        """Write the explanation as the command line prints it.

        Args:
            everything: Whether to name all layers and tensors where many are alike. Names of parts are always complete.

        Returns:
            The text.
        """
        file = io.StringIO()
        show(self, everything=everything, console=safe_console(width=_WIDTH, file=file))
        return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())

    def to_dict(self) -> dict[str, object]:
        """Convert the explanation to the object that `--json` prints.

        Returns:
            A JSON object.
        """
        return to_plain_object(self)

    def causes(self) -> list[Cause]:
        """Group the layers that are left alone by reason and place.

        Returns:
            The causes; the one that keeps the most multiply-adds first.
        """
        return causes(self.left_alone)


def show(found: Explanation, *, everything: bool = False, console: Console | None = None) -> None:
    """Print an explanation.

    Names of groups, blocks and layers are complete, as plans and `protect` take them, whatever the width of the
    terminal.

    Args:
        found: The explanation.
        everything: Whether to print all layers and tensors where many are alike.
        console: The console to print to; standard output by default.
    """
    _Writer(found, console or safe_console(width=_WIDTH), None if everything else _FEW).write()


class _Writer:
    """Prints an explanation on a console. most: number of equal rows that are shown; None for all."""

    def __init__(self, found: Explanation, console: Console, most: int | None) -> None:
        self._found, self._console, self._most = found, console, most

    def write(self) -> None:
        found = self._found
        if found.task:
            self._say(f"The task: {found.task}")
        self._say(
            f"{found.model.parameters:,} parameters, {found.model.multiply_adds:,} multiply-adds, "
            f"{found.model.size_bytes:,} bytes of weights"
        )
        self._say(f"The study searches {_listed([title(kind) for kind in found.space.structure.kinds])}.")
        for section in sorted(found.sections, key=lambda section: not section.searched):
            self._section(section)
        self._weights()
        self._left()
        if found.reach:
            self._head("Costs within reach")
            show_tables(self._console, [self._reach()])
        self._say("")
        for note in found.notes:
            self._say(note)
        if self._most is not None:
            self._say("--all lists every layer and tensor; --json prints all of it for programs.")

    def _section(self, section: Section) -> None:
        name = title(section.kind).capitalize()
        if not section.parts:
            if section.searched:
                self._head(f"{name}: none")
                self._say(section.none)
            return
        asked = "" if section.searched else f'; not searched, as "{section.kind}" is not in kinds'
        self._head(f"{name}: {len(section.parts)}{asked} (share of the model that goes with {section.goes})")
        show_tables(self._console, [self._parts(section)])
        if any(part.exact is False for part in section.parts):
            self._say(_NOT_EXACT)
        if section.together:
            self._say(f"No separate choice, as they only combine others: {', '.join(section.together)}.")
        if section.searched or self._most is None:
            self._stays(section)

    def _parts(self, section: Section) -> Table:
        counted = section.parts[0].channels is not None
        fewest = section.searched and counted
        heads = [*(["number"] if counted else []), *(["fewest"] if fewest else []), "parameters", "multiply-adds"]
        table = _table()
        for column in heads:
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("group" if counted else section.kind.removesuffix("s"), no_wrap=True, overflow="ignore")
        if not all(part.exact in (None, True) for part in section.parts):
            table.add_column("", no_wrap=True, overflow="ignore")
        for part in section.parts:
            numbers = [*([str(part.channels)] if counted else []), *([str(part.fewest)] if fewest else [])]
            shares = (f"{part.parameters:.1%}", f"{part.multiply_adds:.1%}")
            table.add_row(*numbers, *shares, self._named(part), *(["not exact"] if part.exact is False else []))
        return table

    def _named(self, part: Part) -> str:
        """Return the name of a part, and below it the other layers that make its channels."""
        others = [layer for layer in part.layers if layer != part.name.partition("#")[0]]
        return "\n".join([part.name, *(f"  + {line}" for line in first_names(others, self._most))])

    def _stays(self, section: Section) -> None:
        """Print the modules that were candidates for a kind, by reason."""
        alike: dict[tuple[str, str], list[Stays]] = {}
        for one in section.stay:
            alike.setdefault((one.kind, one.why), []).append(one)
        for (_, why), rows in alike.items():
            names = first_names([row.module for row in rows], self._most)
            remedy = f" {rows[0].remedy}" if self._most is None else ""
            self._say(f"Not among them: {sentence_about(names, why)}.{remedy} ({rows[0].docs})")

    def _weights(self) -> None:
        searched = "weights" in self._found.space.structure.kinds
        asked = "" if searched else '; not searched, as "weights" is not in kinds'
        self._head(f"Single weights{asked}")
        whole = max(self._found.model.parameters, 1)
        for row in self._found.weights:
            verdict = f"no: {row.why}" if row.why else "can be masked"
            tensors = f"{len(row.tensors)} tensor{'s' * (len(row.tensors) > 1)}"
            self._say(f"  {row.parameters:,} parameters ({row.parameters / whole:.1%}) in {tensors}: {verdict}")
            for name in row.tensors if self._most is None else ():
                self._say(f"    {name}")

    def _left(self) -> None:
        found = causes(self._found.left_alone)
        if not found:
            return
        self._head("Left alone (share of the multiply-adds in these layers)")
        table = _table()
        table.show_header = False
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="fold")
        for cause in found:
            share = f"{cause.multiply_adds:.1%}"
            for indent, text in self._cause(cause):
                table.add_row(share, Padding(self._console.render_str(text), (0, 0, 0, indent)))
                share = ""
        show_tables(self._console, [table])

    def _cause(self, cause: Cause) -> Iterator[tuple[int, str]]:
        """Yield the lines of a cause, each with its indent."""
        yield 0, cause.why
        shown = cause.places[: self._most]
        for place in shown:
            yield from ((2, line) for line in self._place(place))
        if len(shown) < len(cause.places):
            layers = sum(len(place.layers) for place in cause.places[len(shown) :])
            yield 2, f"and {layers} layers in {len(cause.places) - len(shown)} more places"
        yield 0, f"-> {cause.remedy} ({cause.docs})"

    def _place(self, place: Place) -> Iterator[str]:
        if place.detail:
            yield place.detail
        layers = ", ".join(first_names(list(dict.fromkeys(map(_counted, place.layers))), self._most))
        yield ": ".join(filter(None, (place.where, layers)))

    def _reach(self) -> Table:
        table = _table()
        sparse = any(row.nonzero is not None for row in self._found.reach)
        for column in ("", "parameters", *(["not zero"] if sparse else []), "multiply-adds", "of dense", "bytes"):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for row in self._found.reach:
            nonzero = [f"{row.nonzero:,}"] if row.nonzero is not None else []
            cost = row.cost
            table.add_row(
                *(row.name, f"{cost.parameters:,}", *nonzero, f"{cost.multiply_adds:,}"),
                *(f"{row.share:.1%}", f"{cost.size_bytes:,}"),
            )
        return table

    def _head(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def _say(self, text: str) -> None:
        self._console.print(text)


def _counted(row: UnprunableModule) -> str:
    stay = str(row.channels) if row.channels == row.of else f"{row.channels} of {row.of}"
    counted = f"head width {stay}" if row.parts == "head width" else f"{stay} {row.parts}"
    return f"{row.group or row.module} ({counted})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
