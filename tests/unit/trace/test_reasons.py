"""Why channels are left alone: the kind, the operator as people write it, the module and the line of code."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from autoprune.proof.discover import discover_structure
from autoprune.structure import reasons
from autoprune.structure.absent import sentence_about
from autoprune.structure.reasons import REASON_KINDS, Reason, ReasonKind
from autoprune.trace.located import FUNCTIONS, WITHOUT_RULE
from autoprune.trace.operators import readable_name
from autoprune.trace.rules.registry import RULES
from autoprune.trace.trace import trace

HERE = f"tests/unit/trace/{Path(__file__).name}"


class Between(nn.Module):
    """Something happens to what the first layer makes."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


def model_with(change: Callable[[Tensor], Tensor]) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), Between(change), nn.Linear(8, 3)).eval()


@pytest.mark.parametrize(
    ("names", "words", "said"),
    [
        (["a"], "makes one channel", "a makes one channel"),
        (["a", "b"], "makes one channel", "each of a and b makes one channel"),
        (["a", "b", "2 more"], "makes one channel", "each of a, b and 2 more makes one channel"),
        (["a", "b"], "the model does not run once it is cut", "a, b: the model does not run once it is cut"),
        (["a"], "cutting it changes the outputs", "a: cutting it changes the outputs"),
    ],
)
def test_a_reason_is_a_sentence_with_its_modules(names: list[str], words: str, said: str) -> None:
    assert sentence_about(names, words) == said


def test_every_reason_is_a_sentence_with_its_module() -> None:
    verbs = {"is", "comes", "has", "passes", "makes", "gives", "shares", "was", "cannot"}
    for kind in REASON_KINDS.values():
        sentence = sentence_about(["a"], kind.words)
        assert sentence.startswith("a: ") or sentence.split()[1] in verbs or kind is reasons.OTHER, kind.name


def test_a_scale_of_the_models_own_forward_is_told_as_such() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(7, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.out(torch.relu(self.table(x) * math.sqrt(self.table.embedding_dim)))
            return made

    (group,) = trace(Scaled().eval(), torch.randint(7, (4, 5))).groups
    assert group.hint == "sets a scale that the model works out from it"


def line_of(function: Callable[[Tensor], Tensor]) -> str:
    return f"{HERE}:{function.__code__.co_firstlineno}"


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], ReasonKind, str]] = {
    "add": (lambda x: x + torch.arange(8.0), reasons.UNMADE, "x + y"),
    "cat": (lambda x: torch.cat([x, torch.ones(2, 1, 8)], 1), reasons.UNMADE, "torch.cat"),
    "index": (lambda x: x[..., torch.arange(8)], reasons.PICKED, "x[numbers]"),
    "sort": (lambda x: x.sort(-1).values, reasons.RANKED, "torch.sort"),
    "argmax": (lambda x: x * x.argmax(-1, keepdim=True), reasons.RANKED, "torch.argmax"),
    "kthvalue": (lambda x: x * x.kthvalue(2, -1, keepdim=True).values, reasons.RANKED, "torch.kthvalue"),
    "cumsum": (lambda x: x.cumsum(-1), reasons.ACCUMULATED, "torch.cumsum"),
    "roll": (lambda x: x.roll(1, -1), reasons.ROLLED, "torch.roll"),
    "pad": (lambda x: x + nn.functional.pad(x[..., :4], (0, 4)), reasons.PADDED, "torch.nn.functional.pad"),
    "fft": (lambda x: torch.fft.ifft(torch.fft.fft(x)).real, reasons.FOURIER, "torch.fft"),
    "unknown": (lambda x: x.logcumsumexp(-1), reasons.UNKNOWN, "torch.logcumsumexp"),
    "unequal": (lambda x: torch.cat(x.split([3, 5], -1)[::-1], -1), reasons.UNEQUAL, ""),
}


def test_what_mixes_tokens_has_one_value_for_each() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.positions = nn.Linear(6, 8), nn.Parameter(torch.randn(5, 8))
            self.mix, self.back, self.head = nn.Linear(5, 12), nn.Linear(12, 5), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x) + self.positions
            return self.head(x + self.back(self.mix(x.mT).relu()).mT)

    topology = discover_structure(Mixer().eval(), torch.randn(2, 5, 6))
    assert topology.widths == {"embed": 8, "mix": 12}
    (left,) = [entry.why for entry in topology.unprunable if entry.module == "back"]
    assert (left.kind, readable_name(left.operator)) == (reasons.ALONG_PLACES, "x + y")


@pytest.mark.parametrize("name", CHANGES)
def test_a_reason_names_kind_operator_module_and_line(name: str) -> None:
    change, kind, operator = CHANGES[name]
    topology = trace(model_with(change), torch.randn(2, 5, 6))
    (why,) = {entry.why for entry in topology.unprunable if entry.module == "0"}
    assert (why.kind, why.module, why.line) == (kind, "1", line_of(change))
    assert why.operator.startswith(operator)
    assert why.text == f"{why.words} ({why.operator} in 1, {why.line})"


def test_a_model_of_torchs_own_modules_has_no_line_of_code() -> None:
    """Nor has it that of whoever asked for the trace."""
    topology = trace(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm([5, 8]), nn.Linear(8, 3)), torch.randn(2, 5, 6))
    (why,) = {entry.why for entry in topology.unprunable if entry.module == "0"}
    assert (why.kind, why.module, why.line) == (reasons.SEVERAL_AXES, "1", "")
    assert why.text == "is normalised together with other axes (layer_norm in 1)"


def test_the_output_has_no_place() -> None:
    topology = trace(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 6))
    assert [entry.why for entry in topology.unprunable] == [Reason(kind=reasons.OUTPUT)]
    assert topology.unprunable[0].reason == "is part of the model's output"


class Recurrent(nn.Module):
    def __init__(self, *, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.rnn = nn.GRU(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.packed:
            made = self.rnn(pack_padded_sequence(x, lengths, batch_first=True))[0]
            made = pad_packed_sequence(made, batch_first=True)[0]
        else:
            mask = torch.arange(x.shape[1]) < lengths[:, None]
            made = self.rnn(x)[0] * mask[..., None]
        return self.head(made)


def test_a_packed_sequence_is_named_as_such_and_its_remedy_is_one() -> None:
    inputs = (torch.randn(3, 5, 6), torch.tensor([5, 3, 2]))
    (why,) = {
        entry.why
        for entry in discover_structure(Recurrent(packed=True).eval(), inputs).unprunable
        if entry.module == "rnn"
    }
    assert (why.kind, why.operator) == (reasons.PACKED, "pad_packed_sequence")
    assert discover_structure(Recurrent(packed=False).eval(), inputs).widths == {"rnn": 8}


@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_a_spectral_norm_of_either_kind_is_named_as_such(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), wrap(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 3)).eval()
    kinds = {entry.why.kind for entry in trace(model, torch.randn(4, 6)).unprunable if entry.module.startswith("2")}
    assert kinds == {reasons.PARAMETRISED}


def test_quantisation_aware_training_is_named_as_such() -> None:
    fake = torch.ao.quantization.FakeQuantize(observer=torch.ao.quantization.MovingAverageMinMaxObserver)
    model = nn.Sequential(nn.Linear(6, 8), fake, nn.ReLU(), nn.Linear(8, 3))
    model(torch.randn(4, 6))
    (why,) = {entry.why for entry in trace(model.eval(), torch.randn(4, 6)).unprunable if entry.module == "0"}
    assert (why.kind, why.module) == (reasons.QUANTISED, "1.activation_post_process")


def test_an_operator_of_another_library_is_named_with_it() -> None:
    @torch.library.custom_op("mine::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    topology = trace(model_with(lambda x: 1 + twice(x)), torch.randn(2, 5, 6))
    (why,) = {entry.why for entry in topology.unprunable if entry.module == "0"}
    assert (why.kind, why.operator) == (reasons.UNKNOWN, "mine::twice")


def test_a_size_in_code_names_its_line() -> None:
    def change(x: Tensor) -> Tensor:
        return x.view(2, 5, 8) * 1

    (why,) = {
        entry.why
        for entry in discover_structure(model_with(change), torch.randn(2, 5, 6)).unprunable
        if entry.module == "0"
    }
    assert why.kind == reasons.NOT_RUNNING
    assert why.line == f"{HERE}:{change.__code__.co_firstlineno + 1}"
    assert why.text.endswith(f") ({why.line})")


def test_a_recurrent_layer_as_narrow_as_it_can_be_says_so() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(4, 3, proj_size=2, batch_first=True)
            self.head = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0])

    topology = trace(Projected().eval(), torch.randn(2, 5, 4))
    assert reasons.FEWEST in {entry.why.kind for entry in topology.unprunable}
    assert 3 not in topology.widths.values()


# The table


def test_names_and_titles_are_unique_and_every_kind_has_a_remedy() -> None:
    assert len({kind.title for kind in REASON_KINDS.values()}) == len(REASON_KINDS)
    assert all(kind.remedy.endswith(".") and kind.words and kind.name == name for name, kind in REASON_KINDS.items())


def test_operators_that_more_is_said_of_have_no_rule() -> None:
    assert not WITHOUT_RULE.keys() & RULES.keys()
    packets = {name: getattr(torch.ops.aten, name, None) for name in (*WITHOUT_RULE, *RULES)}
    assert {name for name in WITHOUT_RULE if packets[name] is None} == set()
    assert {*FUNCTIONS.values()} <= {*REASON_KINDS.values()}
