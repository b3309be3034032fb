"""Freed memory goes back to the system."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.proof.memory import give_back, malloc_trim, resident

_BLOCK = 64 * 1024  # small enough for the heap, where gaps stay


@pytest.mark.skipif(malloc_trim() is None or resident() == 0, reason="another C library than that of GNU, or no /proc")
def test_gaps_between_blocks_in_use_are_given_back() -> None:
    blocks = [np.ones(_BLOCK, dtype=np.uint8) for _ in range(1600)]
    used = blocks[::2]
    before = resident()
    del blocks
    give_back(above=float("inf"))
    assert before - resident() < 10e6, "the heap has no gaps: this test would show nothing"
    give_back(above=0)
    assert before - resident() > 30e6
    assert all(block[0] == 1 for block in used)
