"""Counters of energy in a temporary folder, laid out as Linux lays them out under /sys/class/powercap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: A machine of two packages, with parts of the first, the whole platform, and a second way to the first package.
ZONES = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "dram",
    "intel-rapl:1": "package-1",
    "intel-rapl:2": "psys",
    "intel-rapl-mmio:0": "package-0",
}


def write_zones(
    root: Path, zones: Mapping[str, str] = ZONES, *, energy: int = 1_000, most: int = 262_143_328_850
) -> Path:
    """Write the files of zones; the control types themselves are folders without counters."""
    for name in {zone.partition(":")[0] for zone in zones}:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "enabled").write_text("1\n")
    for zone, name in zones.items():
        (root / zone).mkdir(parents=True, exist_ok=True)
        (root / zone / "name").write_text(f"{name}\n")
        (root / zone / "energy_uj").write_text(f"{energy}\n")
        (root / zone / "max_energy_range_uj").write_text(f"{most}\n")
    return root


def add(root: Path, microjoules: float, zone: str = "intel-rapl:0") -> None:
    """Let a counter move, and start again at 0 behind its range."""
    file = root / zone / "energy_uj"
    most = int((root / zone / "max_energy_range_uj").read_text())
    now = int(file.read_text()) + round(microjoules)
    file.write_text(f"{now - most if now > most else now}\n")
