"""Synthetic pruning problems: the quality of any widths in microseconds, and the front that no search can beat.

Group i keeps a share k of its channels and loses f_i(k) = s_i (k^-p_i - 1): convex, and without bound towards nothing.
s_i, p_i and what a unit of its width costs are drawn for each group. Quality is exp(-loss), 1 for the dense model.

    separable       loss = sum of f_i; the scan of each group alone is right
    interactions    loss = sum of f_i + sum over pairs of w_ij sqrt(f_i f_j): some groups matter far more together than
                    alone, which a scan of single groups cannot see
    bad scan        separable, but the scan is wrong by a factor exp(normal) for each group
    unrelated       separable, and no group is like its neighbours: nothing to learn one group from another

But for the last, groups come in eight stages of unequal length, as layers of networks do, and what a stage has in
common makes most of the spread of costs and sensitivities. A group is the hidden width of a residual branch, so that
the cost is linear in every width. The spreads are chosen such that a uniform sweep reaches about 0.7 of the true
front's hypervolume and random ratios about 0.3, as in the problem of the first design.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from autoprune.front.dominance import hypervolume
from autoprune.records.sensitivity import Sensitivity
from autoprune.sensitivity.scan import KEEP_SHARES
from autoprune.structure.groups import ChannelGroup, Member
from autoprune.structure.products import Product, TensorInfo
from autoprune.structure.topology import Topology

KINDS = ("separable", "interactions", "bad scan", "unrelated")
#: Hypervolume counts what is better than this error (1 - quality) and cheaper than dense.
REFERENCE = (0.5, 1.0)
#: Smallest keep share that the spaces reach, and the uniform keep share at which half of the quality is gone.
LEAST, _HALF = 0.05, 0.37
#: Spreads of the logarithms: of the groups' costs, of their sensitivities, of a bad scan's mistakes.
_COSTS, _SENSITIVITIES, _MISTAKES = 0.8, 1.2, 1.5
#: Share of the loss at the uniform half that comes from pairs, and how many pairs a group has beside its neighbours.
_FROM_PAIRS, _PARTNERS = 0.85, 3
#: Stages, and the share of the variances that their groups have in common.
_STAGES, _COMMON = 8, 0.75
#: Prices of the cost at which the true front is solved.
_PRICES = np.exp(np.linspace(-6.0, 6.0, 241))


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One drawn problem.

    sensitivities, exponents: s and p, float [groups]. pairs: w, float [groups, groups], symmetric, zero diagonal.
    topology, scan: what the spaces are built from.
    """

    kind: str
    sensitivities: np.ndarray
    exponents: np.ndarray
    pairs: np.ndarray
    topology: Topology
    scan: Sensitivity

    @functools.cached_property
    def channels(self) -> np.ndarray:
        """Dense widths, float [groups]."""
        return np.array(list(self.topology.widths.values()), dtype=np.float64)

    @functools.cached_property
    def costs(self) -> np.ndarray:
        """Share of the dense cost of each group, float [groups], sums to 1."""
        size = {product.weight: product.positions for product in self.topology.products}
        found = np.zeros(len(self.channels))
        for row, group in enumerate(self.topology.groups):
            for member in group.members:
                found[row] += size[member.tensor] * np.prod(self.topology.tensors[member.tensor].shape)
        return np.asarray(found / found.sum())

    def alone(self, keep: np.ndarray) -> np.ndarray:
        """Loss f of each group at keep shares [..., groups]."""
        return np.asarray(self.sensitivities * (keep**-self.exponents - 1.0))

    def loss(self, keep: np.ndarray) -> float:
        """Loss of keep shares [groups]."""
        alone = self.alone(keep)
        roots = np.sqrt(alone)
        return float(alone.sum() + 0.5 * roots @ self.pairs @ roots)

    def values(self, keep: np.ndarray) -> tuple[float, float]:
        """(error, share of the dense cost) of keep shares [groups]."""
        return float(1.0 - np.exp(-self.loss(keep))), float(self.costs @ keep)

    def evaluate(self, widths: Mapping[str, int]) -> tuple[float, float]:
        """(error, share of the dense cost) of widths by group name; what is not named is whole."""
        keep = np.array([widths.get(name, width) / width for name, width in self.topology.widths.items()])
        return self.values(keep)

    @functools.cached_property
    def best(self) -> float:
        """Hypervolume of the true front."""
        front = self._front_of_pairs() if self.pairs.any() else self._front_alone()
        return hypervolume(np.array([self.values(keep) for keep in front]), REFERENCE)

    def _front_alone(self) -> list[np.ndarray]:
        """At a price for cost each group chooses its width by itself, among whole channels: exact."""
        front = [np.ones_like(self.channels)]
        widest = int(self.channels.max())
        shares = np.arange(1, widest + 1)[:, None] / self.channels
        allowed = (shares >= LEAST) & (shares <= 1.0)
        shares = np.where(allowed, shares, 1.0)
        alone, costs = self.alone(shares), shares * self.costs
        for price in _PRICES:
            chosen = np.argmin(alone + price * costs, axis=0)
            front.append(shares[chosen, np.arange(len(self.channels))])
        return front

    def _front_of_pairs(self) -> list[np.ndarray]:
        """At each price the best of several descents in log(keep); fractional channels, so a little too good."""
        front = [np.ones_like(self.channels)]
        bounds = [(np.log(LEAST), -1e-9)] * len(self.channels)
        last = np.full_like(self.channels, -1e-3)
        for price in _PRICES[::4]:
            starts = (last, np.full_like(last, np.log(0.5)))
            found = [
                minimize(self._priced, start, args=(price,), jac=True, bounds=bounds, method="L-BFGS-B")
                for start in starts
            ]
            last = min(found, key=lambda result: float(result.fun)).x
            front.append(np.exp(last))
        return front

    def _priced(self, logs: np.ndarray, price: float) -> tuple[float, np.ndarray]:
        """Loss + price * cost and its gradient to log(keep)."""
        keep = np.exp(logs)
        powers = self.sensitivities * keep**-self.exponents
        roots = np.sqrt(np.maximum(powers - self.sensitivities, 1e-12))
        pulled = self.pairs @ roots
        value = float((roots**2).sum() + 0.5 * roots @ pulled + price * self.costs @ keep)
        return value, -self.exponents * powers * (1.0 + 0.5 * pulled / roots) + price * self.costs * keep


def draw(kind: str, groups: int, seed: int) -> Problem:
    """The problem of a kind and a seed; the same network for each kind but the last."""
    rng = np.random.default_rng([seed, groups])
    common = 0.0 if kind == "unrelated" else _COMMON
    stages = np.sort(np.concatenate([np.arange(_STAGES), rng.integers(0, _STAGES, groups - _STAGES)]))

    def spread(size: float) -> np.ndarray:
        """Factors of spread `size` in the logarithm, alike within a stage."""
        alike, own = rng.normal(size=_STAGES)[stages], rng.normal(size=groups)
        return np.asarray(np.exp(size * (common**0.5 * alike + (1.0 - common) ** 0.5 * own)))

    topology = _network(rng, spread(_COSTS))
    exponents = rng.uniform(0.75, 2.5, groups)
    sensitivities = spread(_SENSITIVITIES)
    sensitivities *= np.log(2.0) / (sensitivities * (_HALF**-exponents - 1.0)).sum()
    pairs = _pairs(rng, groups)
    mistakes = np.exp(rng.normal(0.0, _MISTAKES, groups))
    if kind == "interactions":
        roots = np.sqrt(sensitivities * (_HALF**-exponents - 1.0))
        pairs *= _FROM_PAIRS / (1.0 - _FROM_PAIRS) * (roots @ roots) / (0.5 * roots @ pairs @ roots)
        sensitivities *= 1.0 - _FROM_PAIRS
    scanned = sensitivities * (mistakes if kind == "bad scan" else 1.0)
    added = {
        group.name: tuple(float(s * (share**-p - 1.0)) for share in KEEP_SHARES)
        for group, s, p in zip(topology.groups, scanned, exponents, strict=True)
    }
    return Problem(
        kind=kind,
        sensitivities=sensitivities,
        exponents=exponents,
        pairs=pairs if kind == "interactions" else np.zeros_like(pairs),
        topology=topology,
        scan=Sensitivity(
            keep_shares=KEEP_SHARES, added_loss=added, criterion="l2", samples_forward=0, samples_trained=0
        ),
    )


def _pairs(rng: np.random.Generator, groups: int) -> np.ndarray:
    """Weights of pairs: each group with the next one, and with some at random, few of them large."""
    found = np.zeros((groups, groups))
    for group in range(groups):
        for other in {(group + 1) % groups, *rng.integers(0, groups, _PARTNERS).tolist()} - {group}:
            found[group, other] = found[other, group] = np.exp(rng.normal(0.0, 2.0))
    return found


def _network(rng: np.random.Generator, costs: np.ndarray) -> Topology:
    """Residual branches whose hidden width is a group, of such relative costs: in [width, 64] and out [64, width]."""
    members, products, tensors = [], [], {}
    for number, cost in enumerate(costs):
        width = int(rng.choice((64, 96, 128, 192, 256)))
        names = (f"branch{number}.into.weight", f"branch{number}.out.weight")
        index = np.arange(width)[:, None]
        members.append(
            ChannelGroup(
                name=f"branch{number}.into",
                channels=width,
                members=(
                    Member(tensor=names[0], axis=0, index=index, role="out"),
                    Member(tensor=names[1], axis=1, index=index, role="in"),
                ),
            )
        )
        tensors[names[0]] = TensorInfo(shape=(width, 64), item_bytes=4, is_parameter=True)
        tensors[names[1]] = TensorInfo(shape=(64, width), item_bytes=4, is_parameter=True)
        positions = max(1, round(1e4 * float(cost) / width))
        products += [Product(weight=name, positions=positions) for name in names]
    return Topology(groups=tuple(members), unprunable=(), products=tuple(products), tensors=tensors)
