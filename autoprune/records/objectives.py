"""Registry of objectives: what a study can minimise, limit, show in tables and choose by. Plain data, without torch.

A cost is one row of COSTS. The quality and the further metrics of a task are made by `records.metric_objectives`, as
only the task knows their names and directions.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.comparison import Comparison, ratio_losses, ratio_numbers, typical_noise
from autoprune.records.measurement import DEFAULT_PROFILE, Measurement
from autoprune.records.origins import Origin

#: Name of the objective of the task's quality metric.
QUALITY = "quality"
#: Name of the cost of energy, which is read from a counter and never predicted.
ENERGY = "energy_mj"
#: Name of the latency in a further profile, such as "latency_ms[batch32]".
_TIMED = re.compile(r"latency_ms\[([^\[\]]+)\]")
#: Kinds of objectives: a metric of the task; a cost that follows from widths and blocks alone; any other cost.
OBJECTIVE_KINDS = ("quality", "structure", "measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A number of a candidate that can be improved.

    Attributes:
        name: Name in settings, limits, commands and tables of data. That of a further latency profile ends in the
            profile's name in brackets.
        title: Name for people.
        value: Function from a measurement to the number; NaN where it was not measured.
        unit: Unit of the number, "" for none. A name ends in its unit, if it has one, in small letters.
        better: "lower" or "higher".
        kind: One of OBJECTIVE_KINDS.
        form: Format of the number in tables for people.
        heading: Name of its column; the title and the unit when "".
        compared: Function from a measurement to its comparison with dense; None for a cost that is not measured in
            turn with the dense model.
        is_latency: Whether it is a latency, which can be predicted.
        setting: Setting by which it is measured, in a sentence; "" where it always is.
        shared: Whether tables have a column of its share of dense.
        redundant: Function that tells whether a column would say nothing new of a measurement, as the non-zero
            parameters of a model without zeros; None for never.

    Example:
        >>> COSTS["size_bytes"].derived("share")
        'size_share'
        >>> metric_objective("recall", "recall", higher_is_better=True).gain(0.9, 0.8) > 0
        True
    """

    name: str
    title: str
    value: Callable[[Measurement], float]
    unit: str = ""
    better: str = "lower"
    kind: str = "measured"
    form: str = ",.0f"
    heading: str = ""
    compared: Callable[[Measurement], Comparison | None] | None = None
    is_latency: bool = False
    setting: str = ""
    shared: bool = False
    redundant: Callable[[Measurement], bool] | None = None

    def derived(self, suffix: str) -> str:
        """Make the name of a number that is derived from this one: without the unit, and with a suffix.

        Args:
            suffix: Such as "share".

        Returns:
            Such as "latency_share", or "latency_share[batch32]" for a further profile.
        """
        base, bracket, profile = self.name.partition("[")
        return f"{base.removesuffix(f'_{self.unit.lower()}')}_{suffix}{bracket}{profile}"

    @property
    def axis_title(self) -> str:
        """Title of an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def is_cost(self) -> bool:
        """Whether it is a cost and no metric."""
        return self.kind != "quality"

    @property
    def is_compared(self) -> bool:
        """Whether it is measured in turn with the dense model."""
        return self.compared is not None

    def comparison(self, measurement: Measurement | None) -> Comparison | None:
        """Compare with the dense model.

        Args:
            measurement: Measurement of a candidate; None for none.

        Returns:
            The comparison; None where nothing was measured in turn.
        """
        return None if self.compared is None or measurement is None else self.compared(measurement)

    def against_dense(self, record: CandidateRecord) -> Comparison | None:
        """Compare a candidate with the dense model. The dense model's ratio is 1, also where its times are in doubt.

        Args:
            record: Candidate.

        Returns:
            The comparison; None where nothing was measured in turn.
        """
        found = self.comparison(record.search)
        if found is None or record.origin is not Origin.DENSE:
            return found
        return found.with_itself

    def loss(self, value: float) -> float:
        """Turn a number of the objective into a loss: the one place that knows its direction.

        Args:
            value: The number.

        Returns:
            The number, or its negative where higher is better.
        """
        return -value if self.better == "higher" else value

    def gain(self, value: float, before: float) -> float:
        """Compute by how much a number is better than another one.

        Args:
            value: The number.
            before: The other number.

        Returns:
            The difference; positive is better.
        """
        return self.loss(before) - self.loss(value)

    def change(self, gain: float) -> float:
        """Return by how much the number itself differs where it is better by a gain.

        Args:
            gain: Result of `gain`.

        Returns:
            The difference; below 0 where lower is better and the gain is above 0.
        """
        return gain if self.better == "higher" else -gain

    def best(self, values: Iterable[float]) -> float:
        """Find the best number.

        Args:
            values: Numbers.

        Returns:
            The best one; NaN for none.
        """
        return min(values, key=self.loss, default=float("nan"))

    def worst(self, values: Iterable[float]) -> float:
        """Find the worst number.

        Args:
            values: Numbers.

        Returns:
            The worst one; NaN for none.
        """
        return max(values, key=self.loss, default=float("nan"))

    def told(self, record: CandidateRecord) -> float:
        """Return the number that samplers are told, in the objective's own direction.

        Args:
            record: Candidate.

        Returns:
            The ratio to dense where it was measured in turn, which is free of the machine's drift; else the number.
        """
        found = self.against_dense(record)
        return float(self.value(record.search)) if found is None else found.ratio

    def shown(self, measurement: Measurement, dense: Measurement | None = None) -> float:
        """Return the number that people see, to which limits refer.

        What is measured in turn is the ratio to dense times the dense model's median in this study: a candidate that
        was measured while the machine was slow does not look slow.

        Args:
            measurement: Measurement of a candidate.
            dense: Measurement of the dense model on the same split, whose ratio is 1; None before there is one.

        Returns:
            The number; NaN where it was not measured.
        """
        found, whole = self.comparison(measurement), self.comparison(dense)
        if found is None or whole is None:
            return self.value(measurement)
        return whole.dense if measurement is dense else found.ratio * whole.dense

    def noise(self, records: Sequence[CandidateRecord]) -> float:
        """Compute the smallest difference that can be told from noise.

        Args:
            records: Candidates of a study.

        Returns:
            For what is measured in turn, half the median width of the intervals of its ratios; else 0.
        """
        return typical_noise(self._ratios(Columns(records))[:, 1])

    def losses(self, records: Sequence[CandidateRecord]) -> np.ndarray:
        """Collect the losses that dominance compares.

        What is measured in turn enters as its ratio to dense, rounded to its noise: candidates that the clock cannot
        tell apart are equal. Candidates of the same widths are the same network and share the median of their ratios.

        Args:
            records: Candidates of a study.

        Returns:
            Float [records]; NaN where nothing was measured that can be trusted.
        """
        return self.losses_of(Columns(records), np.arange(len(records)))

    def losses_of(self, columns: Columns, places: np.ndarray, *, as_measured: bool = False) -> np.ndarray:
        """Collect the losses of some candidates, see `losses`.

        Args:
            columns: Numbers of candidates.
            places: Positions of the candidates that decide together which costs count as equal.
            as_measured: Whether numbers in doubt count, too.

        Returns:
            Float [places].
        """
        if self.compared is None:
            found = columns.column(("loss", self.name), lambda one: self.loss(self.value(one.search)))
            return np.asarray(found[places])
        return ratio_losses(self._ratios(columns, as_measured)[places], columns.architectures[places])

    def _ratios(self, columns: Columns, as_measured: bool = False) -> np.ndarray:
        """Numbers of the ratios to dense, see `records.comparison.ratio_numbers`, [records, 4]."""

        def read(record: CandidateRecord) -> tuple[float, float, float, float]:
            return ratio_numbers(self.comparison(record.search), self.against_dense(record), as_measured)

        return columns.column(("compared", self.name, as_measured), read, 4)

    def is_never_worse(self, rival: CandidateRecord, record: CandidateRecord) -> bool:
        """Tell whether a rival is certainly no worse, whatever the noise. A number that is missing is the worst.

        Args:
            rival: Candidate.
            record: Candidate that it is compared with.

        Returns:
            For what is measured in turn, whether the widths are equal or the intervals do not overlap; else whether
            the loss is no larger.
        """
        if self.compared is None:
            own, other = self.loss(self.value(rival.search)), self.loss(self.value(record.search))
            return bool(np.isnan(other) or own <= other)
        ours, theirs = self.against_dense(rival), self.against_dense(record)
        if ours is None or theirs is None or rival.architecture == record.architecture:
            return theirs is None or ours is not None
        return ours.trusted and theirs.trusted and ours.high <= theirs.low


def further_cost(name: str) -> Callable[[Measurement], float]:
    """Make the function that reads a cost of `Measurement.costs`, which `measure.registry.MEASURERS` fills.

    Args:
        name: Name of the cost.

    Returns:
        Function from a measurement to the cost; NaN where it was not measured.
    """
    return lambda measurement: measurement.costs.get(name, float("nan"))


@functools.cache
def timed_cost(profile: str = DEFAULT_PROFILE) -> Objective:
    """Make the cost of the latency in a profile.

    Args:
        profile: Name of the profile.

    Returns:
        The cost: "latency_ms" for the default profile, "latency_ms[NAME]" for a further one.

    Example:
        >>> timed_cost("batch32").name
        'latency_ms[batch32]'
    """
    bracket, title = ("", "latency") if profile == DEFAULT_PROFILE else (f"[{profile}]", f"latency, {profile}")

    def measured(measurement: Measurement) -> float:
        latency = measurement.latencies.get(profile)
        return float("nan") if latency is None else latency.latency_ms

    def compared(measurement: Measurement) -> Comparison | None:
        latency = measurement.latencies.get(profile)
        return None if latency is None else latency.comparison

    return Objective(
        name=f"latency_ms{bracket}",
        title=title,
        unit="ms",
        value=measured,
        form=".3f",
        compared=compared,
        is_latency=True,
        setting="measure.latency_rounds says how often; 0 leaves it out. "
        "Beside further profiles, latency_ms itself is measured where it is an objective, limited or predicted.",
    )


def find_cost(name: str) -> Objective | None:
    """Look up a cost by name.

    Args:
        name: Name in COSTS, or that of the latency in a further profile.

    Returns:
        The cost; None for another name.

    Example:
        >>> find_cost("latency_ms[batch32]").title
        'latency, batch32'
    """
    further = _TIMED.fullmatch(name)
    return COSTS.get(name) if further is None else timed_cost(further[1])


#: Name -> cost, in the order of tables. A new cost is one row here and one measurer in `measure.registry.MEASURERS`.
COSTS: dict[str, Objective] = {
    cost.name: cost
    for cost in (
        Objective(name="parameters", title="parameters", value=attrgetter("parameters"), kind="structure"),
        Objective(
            name="nonzero_parameters",
            title="parameters other than zero",
            heading="not zero",
            value=attrgetter("nonzero_parameters"),
            redundant=lambda one: one.nonzero_parameters == one.parameters,
        ),
        Objective(
            name="size_bytes",
            title="size on disk",
            unit="bytes",
            value=attrgetter("size_bytes"),
            kind="structure",
        ),
        Objective(
            name="multiply_adds",
            title="multiply-adds",
            value=attrgetter("multiply_adds"),
            kind="structure",
            shared=True,
        ),
        Objective(
            name="peak_memory_bytes",
            title="peak memory",
            unit="bytes",
            value=further_cost("peak_memory_bytes"),
        ),
        timed_cost(),
        Objective(
            name=ENERGY,
            title="energy",
            unit="mJ",
            value=lambda one: math.nan if one.energy is None else one.energy.energy_mj,
            form=".3f",
            compared=lambda one: None if one.energy is None else one.energy.comparison,
            setting="measure.energy=true measures it where the machine has a counter of energy (docs/energy.md).",
            redundant=lambda one: one.energy is None,
        ),
    )
}
