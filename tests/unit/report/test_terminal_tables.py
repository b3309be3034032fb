"""Tables on a terminal: as wide as it is, and nothing in them is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from autoprune.report.terminal import front_tables, show_tables, split_table
from tests.unit.front.builders import dense, front_of, latency, measurement, record

HEAD = ("candidate", "origin", "accuracy (search)", "multiply-adds", "ratio to dense (95 %)")
ROWS = (("0", "dense", "0.9900 ± 0.0051", "9,984", "0.97 (0.94 to 1.03)"), ("11", "uniform", "0.9 ± 0.01", "640", ""))


def printed(width: int) -> list[str]:
    file = io.StringIO()
    show_tables(Console(file=file, width=width), split_table(HEAD, ROWS, width, named=2))
    return file.getvalue().splitlines()


def test_where_there_is_room_headings_stay_on_one_line() -> None:
    lines = printed(200)
    assert all(heading in lines[1] for heading in HEAD)
    assert len(lines) == 6


@pytest.mark.parametrize("width", [200, 80, 50, 20])
def test_a_narrow_terminal_gets_several_tables_with_every_cell(width: int) -> None:
    lines = printed(width)
    for cell in {cell for row in ROWS for cell in row}:
        assert any(cell in line for line in lines), "no cell is cut or broken"
    assert not any("…" in line for line in lines)
    for number in ("0", "11"):
        began = [line for line in lines if line.startswith(f"│ {number} ")]
        assert len(began) == sum(line.startswith("┏") for line in lines), "each table names the candidates"
    if width >= 50:
        assert max(map(len, lines)) <= width


def test_headings_are_broken_between_words_alone() -> None:
    words = {word.strip("┃ ") for line in printed(75) for word in line.split("┃")}
    assert {"accuracy", "(search)", "multiply-adds", "ratio to dense", "(95 %)"} <= words


def test_numbers_are_aligned_to_the_right_and_names_to_the_left() -> None:
    lines = [line for line in printed(200) if line.startswith("│")]
    assert lines[1].startswith("│ 11        │ uniform │")
    assert "│           640 │" in lines[1]


def test_the_front_says_the_unit_of_each_cost() -> None:
    timed = record(1, measurement(0.8, 500, took=latency(0.5)))
    (table,) = front_tables(front_of([dense(took=latency(1.0)), timed]), [timed], Console(file=io.StringIO()))
    heads = [str(column.header) for column in table.columns]
    assert {"parameters", "size on disk (bytes)", "multiply-adds", "multiply-adds / dense", "latency (ms)"} <= set(
        heads
    )
