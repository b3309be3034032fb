"""What a space may be, and the sentence that says so."""

from __future__ import annotations

import pytest

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.search.space.settings import SpaceSettings

UNKNOWN = [
    ({"kind": "guided space"}, "the space must be one of direct, guided, reduced, but got 'guided space'"),
    ({"cost": "latency"}, "must be one of multiply_adds, parameters, size_bytes, but got 'latency'"),
    ({"criteria": ("l2", "talyor")}, "got 'talyor'. Did you mean 'taylor'?"),
    ({"scan_criterion": "l3"}, "a criterion must be one of"),
    ({"optimizers": ("adam",)}, "an optimizer must be one of adamw, auto, sgd, but got 'adam'"),
]
WRONG = [
    ({"min_budget": 0.0}, r"min_budget must lie in \(0, 1\), but got 0.0"),
    ({"min_budget": 1.0}, r"min_budget must lie in \(0, 1\)"),
    ({"min_budget": float("nan")}, r"min_budget must lie in \(0, 1\), but got nan"),
    ({"max_ratio": 1.0}, r"max_ratio must lie in \(0, 1\), but got 1.0"),
    ({"criteria": ()}, "criteria must name at least one"),
    ({"criteria": "l2"}, r"criteria must be a tuple, but got 'l2'. A single one is \(x,\)"),
    ({"criteria": ["l2"]}, "criteria must be a tuple"),
    ({"optimizers": ()}, "optimizers must name at least one"),
    ({"optimizers": "sgd"}, "optimizers must be a tuple"),
    ({"steps": -1}, "steps must be an integer >= 0, or a tuple"),
    ({"steps": 1.5}, "with 1 <= low <= high, but got 1.5"),
    ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ({"learning_rate": (0.1, 0.01)}, "low <= high"),
    ({"distillation": ()}, "distillation must name at least one"),
    ({"distillation": (0.0, 1.5)}, r"distillation must be weights in \[0, 1\]"),
    ({"distillation": 0.5}, "distillation must be a tuple"),
    # Checked by each plan too, but then only once every trial fails.
    ({"scan_samples": 0}, "scan_samples must be an integer >= 1, or None, but got 0"),
    ({"scan_samples": 10.5}, "scan_samples must be an integer >= 1"),
    ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
    ({"batch_norm_samples": -1}, "batch_norm_samples must be an integer >= 0"),
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
        SpaceSettings(**changes)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"), WRONG, ids=[next(iter(c)) + f"={next(iter(c.values()))}" for c, _ in WRONG]
)
def test_wrong_values_say_what_was_expected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SpaceSettings(**changes)  # type: ignore[arg-type]


def test_all_faults_come_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        SpaceSettings(min_budget=2.0, max_ratio=0.0, steps=-1)
    message = str(caught.value)
    assert message.startswith("3 faults in the space:")
    assert all(name in message for name in ("min_budget", "max_ratio", "steps"))


def test_rates() -> None:
    assert SpaceSettings(learning_rate=0.1).rates == (0.1, 0.1)
    assert SpaceSettings(learning_rate=(0.1, 0.2)).rates == (0.1, 0.2)
