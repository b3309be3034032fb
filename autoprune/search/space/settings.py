"""Settings of the search space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Self, get_type_hints

from autoprune.codec import Format, stored
from autoprune.errors import UnknownNameError
from autoprune.plan.rules import check_fields, instance_of
from autoprune.plan.validation import FieldCheck
from autoprune.search.space.earlier_settings import tell_moved_fields
from autoprune.search.space.setting_groups import (
    LATENCY_COST,
    NO_MASKS,
    MaskSettings,
    RecoverySettings,
    ScheduleSettings,
    SearchSettings,
    StructureSettings,
)


@tell_moved_fields
@stored(Format(what="a space", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    """Settings of the search space. Where a field holds several choices, the study samples among them.

    Attributes:
        structure: What is pruned: channels, heads, blocks and layers.
        masks: Masks of single weights.
        schedule: When pruning happens during the fine-tune.
        recovery: The fine-tune and the recovery steps of a trial.
        search: How plans are proposed.

    Raises:
        ConfigurationError: A value is out of its range.
        UnknownNameError: A name is in no registry.

    Example:
        >>> SpaceSettings(structure=StructureSettings(kinds=("channels", "blocks"), round_to=8)).mask_patterns
        ('none',)
    """

    structure: Annotated[StructureSettings, instance_of(StructureSettings)] = field(default_factory=StructureSettings)
    masks: Annotated[MaskSettings, instance_of(MaskSettings)] = field(default_factory=MaskSettings)
    schedule: Annotated[ScheduleSettings, instance_of(ScheduleSettings)] = field(default_factory=ScheduleSettings)
    recovery: Annotated[RecoverySettings, instance_of(RecoverySettings)] = field(default_factory=RecoverySettings)
    search: Annotated[SearchSettings, instance_of(SearchSettings)] = field(default_factory=SearchSettings)

    def __post_init__(self) -> None:
        check_fields("the space", self, more=self._checks_between_groups())

    def changed(self, changes: Mapping[str, object]) -> Self:
        """Change fields of the groups.

        Args:
            changes: "group.field", or "field" for a field outside the groups -> new value.

        Returns:
            Changed settings of the same class.

        Raises:
            ConfigurationError: A value is out of its range.
            UnknownNameError: There is no such field.
        """
        groups: dict[str, dict[str, object]] = {}
        for path, value in changes.items():
            group, _, name = path.rpartition(".")
            owner = getattr(self, group, None) if group else self
            if name not in getattr(owner, "__dataclass_fields__", {}):
                raise UnknownNameError("a setting", path, field_types(type(self)))
            groups.setdefault(group, {})[name] = value
        own = groups.pop("", {})
        found = {group: replace(getattr(self, group), **values) for group, values in groups.items()}
        return replace(self, **found, **own)  # type: ignore[arg-type]  # of the fields' types, by the dataclass's checks

    @property
    def mask_patterns(self) -> tuple[str, ...]:
        """Return the mask patterns to choose from; ("none",) where weights are not pruned."""
        return self.masks.patterns if "weights" in self.structure.kinds else (NO_MASKS,)

    @property
    def scanned(self) -> tuple[str, ...]:
        """Return the criteria that the sensitivity scan uses; none without a scan."""
        search = self.search
        return (search.scan_criterion,) if search.scan and search.space != "direct" else ()

    def lengthened(self, steps: int, share: float) -> int:
        """Scale a number of fine-tune steps by the cost of a plan.

        Args:
            steps: Steps at the cost of the dense model, >= 0.
            share: Multiply-adds of the plan as a share of dense, in [0, 1].

        Returns:
            Steps of the plan.
        """
        share = min(max(share, self.search.min_budget), 1.0)
        return round(steps * float(share**-self.recovery.length_exponent))

    def _checks_between_groups(self) -> Iterator[FieldCheck]:
        yield (
            self.structure.kinds != ("weights",) or self.masks.patterns != (NO_MASKS,),
            "masks.patterns",
            "name one beside 'none' where only weights may go",
            self.masks.patterns,
        )
        wants = "be one that follows from widths alone, such as multiply_adds, where structure.modes has ranking"
        yield (
            self.search.cost != LATENCY_COST or "ranking" not in self.structure.modes,
            "search.cost",
            wants,
            LATENCY_COST,
        )


def field_types(kind: type) -> dict[str, object]:
    """List the fields of nested settings.

    Args:
        kind: Dataclass of settings.

    Returns:
        "group.field", or "field" for a field outside the groups -> type.
    """
    found: dict[str, object] = {}
    hints = get_type_hints(kind)
    for one in fields(kind):
        inner = hints[one.name]
        if isinstance(inner, type) and inner.__name__.endswith("Settings"):
            found |= {f"{one.name}.{name}": hint for name, hint in field_types(inner).items()}
        else:
            found[one.name] = inner
    return found
