"""Medians with their spread, as Markdown that goes into docs/benchmarks.md."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence

from rich.console import Console


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One Markdown table on standard output."""
    lines = [f"\n**{title}**\n", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    Console(soft_wrap=True, highlight=False).print("\n".join(lines), markup=False)


def print_machine() -> None:
    """What the numbers were taken on."""
    import torch

    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread", flush=True
    )
