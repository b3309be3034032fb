"""Rules for the fields of plans and settings, written into their annotations: `Annotated[float, SHARE]`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import get_type_hints

from autoprune.errors import UnknownNameError, error_message, raise_all
from autoprune.plan.validation import FieldCheck, is_count, is_finite, is_non_negative, is_share, shown, validate


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Condition on the value of a field.

    Attributes:
        holds: Value -> whether it is valid.
        wants: What the value must do or be, for messages and for the docs: "lie in [0, 1)".
        known: Registry of the names; None where the value is no name.
        is_tuple: Whether the value must be a tuple.

    Example:
        >>> SHARE.holds(0.5), SHARE.wants
        (True, 'lie in [0, 1)')
    """

    holds: Callable[[object], bool]
    wants: str
    known: Collection[str] | None = None
    is_tuple: bool = False


#: A number in [0, 1).
SHARE = Rule(holds=is_share, wants="lie in [0, 1)")
#: A number in (0, 1).
INNER_SHARE = Rule(holds=lambda value: is_share(value) and value != 0, wants="lie in (0, 1)")
#: A number in [0, 1].
FRACTION = Rule(holds=lambda value: is_share(value) or (is_finite(value) and value == 1), wants="lie in [0, 1]")
#: A number in (0, 1].
PART = Rule(holds=lambda value: FRACTION.holds(value) and value != 0, wants="lie in (0, 1]")
#: A number > 0.
POSITIVE = Rule(holds=lambda value: is_non_negative(value) and value != 0, wants="be > 0")
#: A finite number >= 0.
NON_NEGATIVE = Rule(holds=is_non_negative, wants="be >= 0")
#: True or False.
SWITCH = Rule(holds=lambda value: isinstance(value, bool), wants="be True or False")
#: Any text.
NAME = Rule(holds=lambda value: isinstance(value, str), wants="be a name")


def at_least(least: int, most: int | None = None) -> Rule:
    """Make the rule of an integer.

    Args:
        least: Smallest valid integer, >= 0.
        most: Largest valid integer; None for any that files and arrays can hold.

    Returns:
        The rule.
    """

    def holds(value: object) -> bool:
        return is_count(value) and value >= least and (most is None or value <= most)  # type: ignore[operator]

    return Rule(holds=holds, wants=f"be an integer >= {least}{'' if most is None else f' and <= {most}'}")


def instance_of(kind: type) -> Rule:
    """Make the rule of an object of a class.

    Args:
        kind: The class.

    Returns:
        The rule.
    """
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    return Rule(holds=lambda value: isinstance(value, kind), wants=f"be {article} {kind.__name__}")


def one_of(known: Collection[str]) -> Rule:
    """Make the rule of a name of a registry.

    Args:
        known: Names of the registry.

    Returns:
        The rule.
    """
    return Rule(holds=lambda value: value in known, wants=f"be one of {', '.join(known)}", known=known)


def or_none(rule: Rule) -> Rule:
    """Make the rule of a value that may be None.

    Args:
        rule: Rule of any other value.

    Returns:
        The rule.
    """
    return Rule(
        holds=lambda value: value is None or rule.holds(value),
        wants=f"{rule.wants}, or None",
        known=rule.known,
        is_tuple=rule.is_tuple,
    )


def each(rule: Rule, *, least: int = 1) -> Rule:
    """Make the rule of a tuple of values.

    Args:
        rule: Rule of one value.
        least: Smallest valid length, 0 or 1.

    Returns:
        The rule. Of names, the message names the unknown one.
    """

    def holds(value: object) -> bool:
        return isinstance(value, tuple) and len(value) >= least and all(rule.holds(one) for one in value)

    filled = "" if least == 0 else "of at least one value, "
    wants = f"be a tuple, such as (x,), {filled}in which each must {rule.wants}"
    return Rule(holds=holds, wants=wants, known=rule.known, is_tuple=True)


def ordered(rule: Rule) -> Rule:
    """Make the rule of a range (low, high).

    Args:
        rule: Rule of each end.

    Returns:
        The rule.
    """

    def holds(value: object) -> bool:
        if not (isinstance(value, tuple) and len(value) == 2 and all(rule.holds(end) for end in value)):
            return False
        low, high = value
        return bool(low <= high)

    return Rule(holds=holds, wants=f"be a tuple (low, high) with low <= high, in which each must {rule.wants}")


def either(first: Rule, second: Rule) -> Rule:
    """Make the rule of a value that follows one of two rules.

    Args:
        first: One rule.
        second: The other.

    Returns:
        The rule.
    """
    wants = f"{first.wants}, or {second.wants.removeprefix('be ')}"
    return Rule(holds=lambda value: first.holds(value) or second.holds(value), wants=wants)


@functools.cache
def rules_of(kind: type) -> tuple[tuple[str, Rule], ...]:
    """Read the rules from the annotations of a dataclass.

    Args:
        kind: The dataclass.

    Returns:
        Name of a field and its rule, for each field that has one.
    """
    hints = get_type_hints(kind, include_extras=True)
    noted = {one.name: getattr(hints[one.name], "__metadata__", ()) for one in fields(kind)}
    return tuple((name, rule) for name, notes in noted.items() for rule in notes if isinstance(rule, Rule))


def check_fields(subject: str, value: object, group: str = "", more: Iterable[FieldCheck] = ()) -> None:
    """Check the fields of a dataclass against the rules of its annotations, and report all faults at once.

    Args:
        subject: Name of the object, for messages.
        value: An object of a dataclass.
        group: Name of the field that holds the object, for messages; "" for none.
        more: Checks beyond those of single fields; skipped where a field is at fault.

    Raises:
        UnknownNameError: The only fault is a name that is in no registry.
        ConfigurationError: When a check fails; the message lists every fault.
    """
    kind: type = type(value)
    if all(rule.holds(getattr(value, name)) for name, rule in rules_of(kind)):  # nearly always, and a run has thousands
        validate(subject, more)
        return
    faults = list(_faults(value, group))
    if len(faults) == 1 and isinstance(faults[0], UnknownNameError):
        raise faults[0]
    raise_all(subject, [str(fault) for fault in faults])


def _faults(value: object, group: str) -> Iterator[UnknownNameError | str]:
    kind: type = type(value)
    for name, rule in rules_of(kind):
        got = getattr(value, name)
        if rule.holds(got):
            continue
        label = f"{group}.{name}" if group else name
        unknown = _unknown_names(rule, got)
        if rule.known is not None and unknown:
            yield UnknownNameError(label, unknown[0], rule.known)
        else:
            yield error_message(label, rule.wants, shown(got))


def _unknown_names(rule: Rule, value: object) -> list[object]:
    """List the names of a value that are in no registry; none where the value is no name at all."""
    if rule.known is None or rule.is_tuple != isinstance(value, tuple):
        return []
    names: tuple[object, ...] = value if isinstance(value, tuple) else (value,)
    return [name for name in names if name not in rule.known and not (rule.is_tuple and rule.holds((name,)))]
