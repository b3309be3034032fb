"""Trace a model and turn the trace into a topology."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from autoprune.structure.groups import ChannelGroup, Member
from autoprune.structure.products import Contraction, TensorInfo
from autoprune.structure.reasons import COUPLED, FEWEST, NOT_MADE, NOT_READ, ONE_CHANNEL, UNUSED, Reason
from autoprune.structure.topology import Topology
from autoprune.structure.unprunable import IneligibleModule, UnprunableLayer
from autoprune.task.data import Inputs
from autoprune.trace.attributes import Attributes, spans_of
from autoprune.trace.blocks.layers import find_layers
from autoprune.trace.blocks.owners import Owners
from autoprune.trace.blocks.residual_blocks import find_blocks
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.modules import min_channels_of, normalisations
from autoprune.trace.watch import run

#: (tensor, axis) -> positions of one class of coupled channels.
Places = dict[tuple[str, int], list[int]]


def trace(
    model: nn.Module, example_inputs: Inputs, *, tied: frozenset[str] = frozenset(), in_training: bool = False
) -> Topology:
    """Find the coupled channel groups of a model.

    The model is copied and run once on the example inputs. The topology is not yet proved: `autoprune.proof.discover`
    compares a cut with a mask for every group.

    Args:
        model: The model.
        example_inputs: Inputs of its forward.
        tied: Modules that take the number of channels they reshape from their input, as in `B, N, C = x.shape`.
        in_training: Also couple the channels that only the forward of training mode couples.

    Returns:
        The topology.

    Raises:
        TraceError: If the model cannot be copied or run.
    """
    graph, scratch = run(model, example_inputs, tied=tied, in_training=in_training)
    names = _module_of(scratch)
    attributes = Attributes(graph, scratch)  # first, as it may find more channels to be the same
    places = _places(graph)
    groups: list[ChannelGroup] = []
    owner: dict[int, str] = {}
    refused: dict[int, Reason] = {}
    read = {atom for node in graph.contracted_nodes for atom in graph.union_find.atoms(node)}
    crossing = _crossing(graph)
    attention = _attention(graph, crossing)
    kinds = _kinds(attention)
    for atoms in _clusters(graph, places, crossing):
        name = _name(graph, names, places[atoms[0]], groups)
        reason = _ineligible(graph, places[atoms[0]], atoms, read)
        if reason:
            refused.update(dict.fromkeys(atoms, reason))
        else:
            group = replace(_group(graph, name, [places[atom] for atom in atoms]), kind=kinds(atoms))
            if group.min_channels >= group.channels:
                refused.update(dict.fromkeys(atoms, Reason(kind=FEWEST)))
                continue
            owner.update(dict.fromkeys(atoms, name))
            scaling = attributes.scaling(atoms)
            hint = f"sets a scale that {scaling[0] or 'the model'} works out from it" if scaling else ""
            groups.append(replace(group, reshaped=attributes.reshaped(atoms), scaling=scaling, hint=hint))
    numbers = attributes.by_group(owner)
    owners = Owners(graph, scratch)
    found, no_layers = find_layers(graph, scratch, owners, find_blocks(graph, scratch, owners))
    return Topology(
        groups=tuple(replace(group, attributes=numbers.get(group.name, ())) for group in groups),
        unprunable=_left_alone(graph, scratch, names, refused, owner),
        products=graph.products,
        tensors=_infos(graph),
        blocks=found,
        ineligible=(
            *_ineligible_attention(graph, names, groups, attention, refused),
            *(
                IneligibleModule(kind="layers", module=module, why=Reason(kind=why))
                for module, why in no_layers.items()
            ),
        ),
        contractions=_contractions(graph, owner),
        has_statistics=bool(graph.reduced_nodes),
        input_axes=_input_axes(graph),
        norms=normalisations(scratch),
    )


def _input_axes(graph: ChannelGraph) -> dict[str, int]:
    rank = {name: position for position, name in enumerate(graph.order)}
    return dict(sorted(graph.reading_axes, key=lambda key: (rank.get(key[0], len(rank)), key)))


def _contractions(graph: ChannelGraph, owner: Mapping[int, str]) -> tuple[Contraction, ...]:
    """Return the products of activations, with the axes as spans of groups."""
    return tuple(
        Contraction(
            module=module,
            positions=positions,
            axes=tuple(spans_of(graph, owner, nodes) for nodes in axes),
        )
        for module, positions, axes in graph.contracted
    )


def _places(graph: ChannelGraph) -> dict[int, Places]:
    """Return the positions of every class that is not frozen."""
    places: dict[int, Places] = defaultdict(dict)
    known: dict[bytes, dict[int, list[int]]] = {}  # many axes hold the same classes in the same places
    for name, axes in graph.owned.items():
        for axis, nodes in enumerate(axes):
            if nodes is None:
                continue
            roots = graph.union_find.roots(nodes)
            key = roots.tobytes()
            if key not in known:
                known[key] = graph.union_find.removable(roots)
            for atom, positions in known[key].items():
                places[atom][name, axis] = positions
    return places


def _clusters(
    graph: ChannelGraph, places: Mapping[int, Places], crossing: Mapping[int, frozenset[int]]
) -> list[list[int]]:
    """Group the classes that lie on the same axes equally often: any of them can replace another."""
    clusters: dict[object, list[int]] = defaultdict(list)
    for atom, place in places.items():
        signature = tuple((key, len(positions)) for key, positions in place.items())
        clusters[signature, graph.union_find.family(atom)].append(atom)
    rank = {name: position for position, name in enumerate(graph.order)}

    def first_made(atoms: list[int]) -> tuple[int, list[int]]:
        # Compare all positions, so that the rows of a grid come before its columns: their positions are adjacent.
        made = [
            (rank.get(name, len(rank)), positions)
            for (name, axis), positions in places[atoms[0]].items()
            if _makes(graph, name, axis)
        ]
        return min(made, default=(len(rank), []))

    ordered = sorted((part for atoms in clusters.values() for part in _apart(atoms, crossing)), key=first_made)
    return [_in_order(graph, atoms, places) for atoms in ordered]


def _apart(atoms: Sequence[int], crossing: Mapping[int, frozenset[int]]) -> list[list[int]]:
    """Split classes that share positions: rows and columns of one grid never form one group, even if alike."""
    parts: list[list[int]] = []
    for atom in atoms:
        others = crossing.get(atom)
        free = next((part for part in parts if not others or others.isdisjoint(part)), None)
        if free is None:
            parts.append([atom])
        else:
            free.append(atom)
    return parts


def _crossing(graph: ChannelGraph) -> dict[int, frozenset[int]]:
    """Map each class of channels to the classes that share a position with it."""
    found: dict[int, set[int]] = defaultdict(set)
    axes = [nodes for axes in graph.owned.values() for nodes in axes if nodes is not None]
    for root in graph.union_find.products_among(axes).tolist():
        atoms = graph.union_find.atoms(root)
        for atom in atoms:
            found[atom] |= atoms - {atom}
    return {atom: frozenset(others) for atom, others in found.items()}


def _kinds(attention: tuple[set[int], set[int]]) -> Callable[[Sequence[int]], str]:
    """Return a function that tells the kind of a group from its classes."""
    heads, across = attention

    def kind(atoms: Sequence[int]) -> str:
        if atoms[0] in heads:
            return "heads"
        return "head_width" if atoms[0] in across else "channels"

    return kind


def _attention(graph: ChannelGraph, crossing: Mapping[int, frozenset[int]]) -> tuple[set[int], set[int]]:
    """Return the classes of heads, and of head widths."""
    heads = {atom for node in graph.batch_nodes for atom in graph.union_find.atoms(node)}
    return heads, {other for atom, others in crossing.items() if atom in heads for other in others}


def _ineligible_attention(
    graph: ChannelGraph,
    names: Mapping[str, str],
    groups: Sequence[ChannelGroup],
    attention: tuple[set[int], set[int]],
    refused: Mapping[int, Reason],
) -> Iterator[IneligibleModule]:
    """Yield the modules that make heads or head widths, with the reason, for each of these kinds without any group."""
    for kind, atoms in zip(("heads", "head_width"), attention, strict=True):
        if atoms and not any(group.kind == kind for group in groups):
            for tensor, axes in graph.owned.items():
                nodes = [node for axis in axes if axis is not None for node in axis.tolist()]
                own = (atom for node in nodes for atom in graph.union_find.atoms(node) if atom in atoms)
                why = next(filter(None, (_reason(graph, atom, refused) for atom in own)), None)
                if why is not None:
                    yield IneligibleModule(kind=kind, module=names[tensor], why=why)


def _makes(graph: ChannelGraph, name: str, axis: int) -> bool:
    return graph.roles.get((name, axis)) == "out"


def _in_order(graph: ChannelGraph, atoms: Sequence[int], places: Mapping[int, Places]) -> list[int]:
    """Sort channels that lie on the same axes by their first position on those that make them."""
    made = [key for key in places[atoms[0]] if _makes(graph, *key)]
    return sorted(atoms, key=lambda atom: min(places[atom][key] for key in made or places[atom]))


def _ineligible(graph: ChannelGraph, place: Places, atoms: Sequence[int], read: set[int]) -> Reason | None:
    roles = {graph.roles.get(key, "other") for key in place}
    if "out" not in roles:
        return Reason(kind=NOT_MADE)
    # A tied weight makes channels on an axis that it reads elsewhere.
    if not any(key in graph.reading_axes for key in place) and atoms[0] not in read:
        return Reason(kind=NOT_READ)
    if len(atoms) < 2:
        return Reason(kind=COUPLED)
    return None


def _group(graph: ChannelGraph, name: str, places: Sequence[Places]) -> ChannelGroup:
    order = {key: number for number, key in enumerate(graph.owned)}
    keys = sorted(places[0], key=lambda key: (order[key[0]], key[1]))
    members = tuple(
        Member(
            tensor=tensor,
            axis=axis,
            index=np.array([place[tensor, axis] for place in places], dtype=np.int64),
            role=graph.roles.get((tensor, axis), "other"),
            beside=graph.beside.get(tensor),
        )
        for tensor, axis in keys
    )
    return ChannelGroup(name=name, channels=len(places), members=members, min_channels=min_channels_of(graph, members))


def _name(graph: ChannelGraph, names: Mapping[str, str], place: Places, taken: Sequence[ChannelGroup]) -> str:
    made = [tensor for tensor in graph.order if any(key[0] == tensor and _makes(graph, *key) for key in place)]
    base = names.get(made[0], made[0]) if made else next(iter(place))[0]
    used = {group.name for group in taken}
    name, number = base, 2
    while name in used:
        name, number = f"{base}#{number}", number + 1
    return name


def _left_alone(
    graph: ChannelGraph,
    model: nn.Module,
    names: Mapping[str, str],
    refused: Mapping[int, Reason],
    owner: Mapping[int, str],
) -> tuple[UnprunableLayer, ...]:
    """For each weight that makes channels, count those that stay, by reason."""
    found: list[UnprunableLayer] = []
    known: dict[bytes, dict[Reason, int]] = {}
    for tensor, axes in graph.owned.items():
        for axis, nodes in enumerate(axes):
            if nodes is None or not _makes(graph, tensor, axis):
                continue
            roots = graph.union_find.roots(nodes)
            key = roots.tobytes()
            if key not in known:
                known[key] = _stays(graph, roots, refused, owner)
            found += [
                UnprunableLayer(module=names[tensor], channels=count, of=len(nodes), why=why)
                for why, count in known[key].items()
            ]
    held = {entry.module for entry in found}
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and names[name] not in held and not _offered(graph, name, owner):
            size, why = parameter.shape[0], _unseen(graph, name, refused)
            found.append(UnprunableLayer(module=names[name], channels=size, of=size, why=why))
    return tuple(found)


def _stays(
    graph: ChannelGraph, roots: npt.NDArray[np.int64], refused: Mapping[int, Reason], owner: Mapping[int, str]
) -> dict[Reason, int]:
    """Count the positions of an axis that stay, by reason. roots: representatives of its nodes."""
    reasons: dict[Reason, int] = defaultdict(int)
    for node, count in Counter(graph.union_find.alike(roots).tolist()).items():
        # One side of a grid may stay while the other is removed.
        removable = any(atom in owner for atom in graph.union_find.atoms(node))
        reason = None if removable else _reason(graph, node, refused)
        if reason is not None:
            reasons[reason] += count
    return reasons


def _offered(graph: ChannelGraph, name: str, owner: Mapping[int, str]) -> bool:
    """Tell whether some group lies along an axis of the tensor."""
    return any(
        atom in owner
        for nodes in graph.owned[name]
        if nodes is not None
        for node in nodes.tolist()
        for atom in graph.union_find.atoms(node)
    )


def _unseen(graph: ChannelGraph, name: str, refused: Mapping[int, Reason]) -> Reason:
    if any(_makes(graph, name, axis) and nodes is None for axis, nodes in enumerate(graph.owned[name])):
        return Reason(kind=ONE_CHANNEL)
    seen = any((name, axis) in graph.roles for axis in range(len(graph.owned[name])))
    nodes = (node for nodes in graph.owned[name] if nodes is not None for node in nodes.tolist())
    found = (_reason(graph, node, refused if seen else {}) for node in nodes)
    return next(filter(None, found), Reason(kind=UNUSED))


def _reason(graph: ChannelGraph, node: int, refused: Mapping[int, Reason]) -> Reason | None:
    for atom in graph.union_find.atoms(node):
        reason = graph.union_find.reason(atom) or refused.get(atom)
        if reason:
            return reason
    return None


def _module_of(model: nn.Module) -> dict[str, str]:
    """Map each tensor to the module that holds it."""
    return {
        name: name.rpartition(".")[0] or name
        for name in (*dict(model.named_parameters()), *dict(model.named_buffers()))
    }


def _infos(graph: ChannelGraph) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            shape=tuple(tensor.shape), item_bytes=tensor.element_size(), is_parameter=_is_parameter(tensor)
        )
        for name, tensor in graph.named.items()
    }


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)
