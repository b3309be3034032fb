"""What a space may be, and the sentence that says so."""

from __future__ import annotations

import pytest

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.search.space.setting_groups import RecoverySettings
from tests.settings import space_of

UNKNOWN = [
    ({"space": "guided space"}, "search.space must be one of direct, guided, reduced, but got 'guided space'"),
    ({"cost": "latency"}, "must be one of latency_ms, multiply_adds, parameters, size_bytes, but got 'latency'"),
    ({"criteria": ("l2", "talyor")}, "got 'talyor'. Did you mean 'taylor'?"),
    ({"scan_criterion": "l3"}, "search.scan_criterion must be one of"),
    ({"optimizers": ("adam",)}, "recovery.optimizers must be one of adamw, auto, sgd, but got 'adam'"),
]
WRONG = [
    ({"min_budget": 0.0}, r"min_budget must lie in \(0, 1\), but got 0.0"),
    ({"min_budget": 1.0}, r"min_budget must lie in \(0, 1\)"),
    ({"min_budget": float("nan")}, r"min_budget must lie in \(0, 1\), but got nan"),
    ({"max_ratio": 1.0}, r"max_ratio must lie in \(0, 1\), but got 1.0"),
    ({"criteria": ()}, "criteria must be a tuple, such as .* of at least one value"),
    ({"criteria": "l2"}, r"criteria must be a tuple, such as \(x,\), .*, but got 'l2'"),
    ({"criteria": ["l2"]}, "criteria must be a tuple"),
    ({"optimizers": ()}, "optimizers must be a tuple"),
    ({"optimizers": "sgd"}, "optimizers must be a tuple"),
    ({"steps": -1}, "steps must be an integer >= 0, or a tuple"),
    ({"steps": 1.5}, "with low <= high, in which each must be an integer >= 1, but got 1.5"),
    ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ({"learning_rate": (0.1, 0.01)}, "low <= high"),
    ({"distillation": ()}, "distillation must be a tuple"),
    ({"distillation": (0.0, 1.5)}, r"distillation must be .* in which each must lie in \[0, 1\]"),
    ({"distillation": 0.5}, "distillation must be a tuple"),
    # Checked by each plan too, but then only once every trial fails.
    ({"scan_samples": 0}, "scan_samples must be an integer >= 1, or None, but got 0"),
    ({"scan_samples": 10.5}, "scan_samples must be an integer >= 1"),
    ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
    ({"recalibration": (-1,)}, "recalibration must be .* in which each must be an integer >= 0"),
    # A list, or one number of a pair, is what people write by mistake.
    ({"learning_rate": [0.01, 0.1]}, "learning_rate must"),
    ({"learning_rate": (0.1,)}, "learning_rate must"),
    ({"learning_rate": "0.1"}, "learning_rate must"),
    ({"min_budget": "5%"}, "min_budget must"),
    ({"max_ratio": None}, "max_ratio must"),
]


@pytest.mark.parametrize(("changes", "message"), UNKNOWN, ids=lambda value: "" if isinstance(value, str) else None)
def test_unknown_names_list_the_known(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        space_of(**changes)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"), WRONG, ids=[next(iter(c)) + f"={next(iter(c.values()))}" for c, _ in WRONG]
)
def test_wrong_values_say_what_was_expected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        space_of(**changes)  # type: ignore[arg-type]


def test_all_faults_come_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RecoverySettings(steps=-1, weight_decay=-1.0, precision="half")
    message = str(caught.value)
    assert message.startswith("3 faults in the settings of the recovery:")
    assert all(f"recovery.{name} must" in message for name in ("steps", "weight_decay", "precision"))


def test_rates() -> None:
    assert space_of(learning_rate=0.1).recovery.rates == (0.1, 0.1)
    assert space_of(learning_rate=(0.1, 0.2)).recovery.rates == (0.1, 0.2)
