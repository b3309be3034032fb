"""Widths of all candidates as one array, so that an ask finds those that contain a plan at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.search.allocation.cost_model import CostModel
from autoprune.structure.topology import Topology

#: Sets of dropped blocks whose costs are kept.
_KEPT = 64
#: Largest relative error of costs as floating-point numbers.
_ROUNDING = 1e-9


class WidthTable:
    """Widths and multiply-adds of candidates.

    Args:
        topology: Structure of the dense model.
        columns: Numbers of the candidates.

    Attributes:
        columns: Numbers of the candidates; others once their list has changed.
    """

    def __init__(self, topology: Topology, columns: Columns) -> None:
        self._topology, self._names = topology, list(topology.widths)
        self.columns = columns
        self._models: dict[tuple[str, ...], CostModel] = {}

    def containing(self, widths: Mapping[str, int]) -> list[CandidateRecord]:
        """Find the candidates that are at least as wide in every group.

        Args:
            widths: Group -> channels, for every group.

        Returns:
            Candidates in the order of the list.
        """
        least = np.array([widths[name] for name in self._names], dtype=np.int64)
        return self._at(np.flatnonzero((self._widths >= least).all(axis=1)))

    def leaving(self, widths: Mapping[str, int], dropped: tuple[str, ...], least: float) -> list[CandidateRecord]:
        """Find the candidates that leave enough multiply-adds of a plan that is shrunk to fit them, up to rounding.

        Args:
            widths: Group -> channels of the plan, for every group.
            dropped: Blocks that the plan drops.
            least: Multiply-adds that have to be left.

        Returns:
            Candidates that have at least as many multiply-adds, in the order of the list.
        """
        paid = self.columns.column("multiply-adds", lambda record: record.search.multiply_adds)
        places = np.flatnonzero(paid >= least)
        if not self._names or not len(places):
            return self._at(places)
        model = self._model(dropped)
        order = [self._names.index(name) for name in model.names]
        rows = self._widths[places][:, order]
        left = model.shares(np.minimum(rows, model.as_array(widths))) * model.dense
        return self._at(places[left >= least * (1 - _ROUNDING)])

    @property
    def _widths(self) -> np.ndarray:
        """Widths of the candidates, [records, groups]."""
        names = self._names
        return self.columns.column("widths", lambda record: [record.widths[name] for name in names], len(names))

    def _model(self, dropped: tuple[str, ...]) -> CostModel:
        if dropped not in self._models:
            if len(self._models) >= _KEPT:
                self._models.clear()
            self._models[dropped] = CostModel(self._topology, "multiply_adds", dropped)
        return self._models[dropped]

    def _at(self, places: np.ndarray) -> list[CandidateRecord]:
        return [self.columns.records[place] for place in places.tolist()]
