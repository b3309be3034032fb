"""The device profile of a run: its staircases, and how well latencies are predicted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoprune.records.run_folder import DEVICE_PROFILE
from autoprune.report.section import Section
from autoprune.report.sections.device import device_section
from autoprune.report.sections.registry import SECTIONS
from autoprune.trace.trace import trace
from tests.device_profiles import half_for_nothing, profile_of
from tests.unit.front.builders import dense, run_of
from tests.unit.report.drawn import drawn
from tests.zoo.convolutional import mlp


def section(path: Path) -> Section | None:
    run = run_of(path, [dense()])
    return SECTIONS["Understanding"]["device"](run, run.front())


def test_staircases_and_errors_are_told(tmp_path: Path) -> None:
    assert section(tmp_path) is None, "most studies have no profile"
    topology = trace(mlp(features=6, classes=3).eval(), torch.randn(2, 6))
    profile = profile_of(topology, half_for_nothing(topology), grain=4)
    run_of(tmp_path, []).folder.write_device_profile(replace(profile, doubts=("The machine was busy.",)))
    found = section(tmp_path)
    assert found is not None
    (picture,) = found.pictures
    (trace_of_class,) = drawn(picture.figure).data
    assert (trace_of_class.name, list(trace_of_class.x), list(trace_of_class.y)) == ("convolution", [0, 1], [1.0, 1.0])
    assert trace_of_class.error_y.array[0] == pytest.approx(0.01)
    assert picture.text.endswith("The distance between fast widths is 4 for convolution.")
    assert found.table is not None
    assert found.table.head == ("layers", "groups", "grain", "0", "-1")
    (row,) = found.table.rows
    assert row[2:] == ("4", "1.000", "1.000")
    assert "a processor, 2 cores, a system; onnxruntime" in found.lead
    off = profile.beside_grain
    assert 0 < off < len(profile.models)
    assert f"30 models, {off} of which have widths off the grain or below it" in found.notes[-1]
    assert found.warnings == ("The machine was busy.",)
    run_of(tmp_path, []).folder.write_device_profile(replace(profile, staircases=()))
    plain = section(tmp_path)
    assert plain is not None
    assert (plain.pictures, plain.table) == ((), None)
    (tmp_path / DEVICE_PROFILE).write_text("{")
    broken = section(tmp_path)
    assert broken is not None
    assert "Run `autoprune doctor " in broken.warnings[0]
    assert device_section(run_of(tmp_path, []), run_of(tmp_path, []).front()) == broken
