"""ProportionalLatency: a stand-in for latency until it is measured, from the multiply-adds alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoprune.records.measurement import PREDICTION, Latency
from autoprune.structure.topology import Topology


@dataclass(frozen=True, slots=True)
class ProportionalLatency:
    """Latency in proportion to multiply-adds: its order is mostly right, and a pruned model is rarely as quick as that.

    Attributes:
        topology: Structure of the dense model.
        dense: Latency of the dense model.
    """

    topology: Topology
    dense: Latency

    def predict(self, widths: Mapping[str, int], dropped: Sequence[str] = ()) -> Latency:
        """Predict the latency of a cut model.

        Args:
            widths: Group name -> width; whole for a group that is not named.
            dropped: Names of the blocks that are dropped.

        Returns:
            The latency, between that share of the dense model's and all of it, without a measurement.
        """
        whole = self.topology.cost({}).multiply_adds
        share = self.topology.cost(widths, dropped).multiply_adds / whole if whole else 1.0
        dense_ms = self.dense.dense_ms
        return Latency(
            latency_ms=dense_ms * share,
            low_ms=dense_ms * share,
            high_ms=dense_ms,
            dense_ms=dense_ms,
            ratio=share,
            ratio_low=share,
            ratio_high=1.0,
            backend=self.dense.backend,
            rounds=0,
            clock=PREDICTION,
        )
