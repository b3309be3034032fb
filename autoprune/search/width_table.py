"""Widths of all candidates as one array, so that an ask finds those that contain a plan at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from operator import is_not

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.search.allocation.cost_model import CostModel
from autoprune.structure.topology import Topology

#: Rows for which there is room at first; sets of dropped blocks whose costs are kept.
_ROOM, _KEPT = 64, 64
#: Largest relative error of costs as floating-point numbers.
_ROUNDING = 1e-9


class WidthTable:
    """Widths and multiply-adds of a list of candidates, kept for those at its start that stay.

    Args:
        topology: Structure of the dense model.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology, self._names = topology, list(topology.widths)
        self._records: list[CandidateRecord] = []
        self._widths = np.empty((_ROOM, len(self._names)), dtype=np.int64)
        self._paid = np.empty(_ROOM, dtype=np.float64)
        self._models: dict[tuple[str, ...], CostModel] = {}

    def follow(self, records: Sequence[CandidateRecord]) -> None:
        """Take the candidates of a list that has changed.

        Args:
            records: All candidates.
        """
        shared = min(len(records), len(self._records))
        differing = compress(range(shared), map(is_not, records, self._records))
        first = next(differing, shared)
        self._make_room(len(records))
        for place in range(first, len(records)):
            record = records[place]
            self._widths[place] = [record.widths[name] for name in self._names]
            self._paid[place] = record.search.multiply_adds
        self._records[first:] = records[first:]

    def containing(self, widths: Mapping[str, int]) -> list[CandidateRecord]:
        """Find the candidates that are at least as wide in every group.

        Args:
            widths: Group -> channels, for every group.

        Returns:
            Candidates in the order of the list.
        """
        least = np.array([widths[name] for name in self._names], dtype=np.int64)
        return self._at(np.flatnonzero((self._widths[: len(self._records)] >= least).all(axis=1)))

    def leaving(self, widths: Mapping[str, int], dropped: tuple[str, ...], least: float) -> list[CandidateRecord]:
        """Find the candidates that leave enough multiply-adds of a plan that is shrunk to fit them, up to rounding.

        Args:
            widths: Group -> channels of the plan, for every group.
            dropped: Blocks that the plan drops.
            least: Multiply-adds that have to be left.

        Returns:
            Candidates that have at least as many multiply-adds, in the order of the list.
        """
        places = np.flatnonzero(self._paid[: len(self._records)] >= least)
        if not self._names or not len(places):
            return self._at(places)
        model = self._model(dropped)
        order = [self._names.index(name) for name in model.names]
        rows = self._widths[places][:, order].astype(np.float64)
        left = model.shares(np.minimum(rows, model.as_array(widths))) * model.dense
        return self._at(places[left >= least * (1 - _ROUNDING)])

    def _model(self, dropped: tuple[str, ...]) -> CostModel:
        if dropped not in self._models:
            if len(self._models) >= _KEPT:
                self._models.clear()
            self._models[dropped] = CostModel(self._topology, "multiply_adds", dropped)
        return self._models[dropped]

    def _at(self, places: np.ndarray) -> list[CandidateRecord]:
        return [self._records[place] for place in places.tolist()]

    def _make_room(self, count: int) -> None:
        while len(self._paid) < count:
            self._widths = np.concatenate([self._widths, np.empty_like(self._widths)])
            self._paid = np.concatenate([self._paid, np.empty_like(self._paid)])
