"""What is said of a model before a study: the space that it searches, whole names, and what stays and why."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import UnknownNameError
from autoprune.explaining.explain import explain_topology
from autoprune.explaining.explanation import Explanation, show
from autoprune.explaining.parts import Section
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.proof.discover import discover_structure
from autoprune.search.space.encode import distributions
from autoprune.search.space.setting_groups import PRUNING_KINDS
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.absent import why_none
from autoprune.structure.reasons import PROTECTED
from autoprune.structure.topology import Topology
from autoprune.trial.candidate import evaluate_plan
from autoprune.trial.context import TrialContext
from tests.end_to_end.script import command, write
from tests.settings import space_of
from tests.tasks import image_task
from tests.unit.trace.test_reasons import Recurrent
from tests.zoo.registry import build_any

LONG = "a_part_whose_name_is_longer_than_any_terminal_is_wide_as_people_who_generate_their_models_have_them"


class Encoder(nn.Module):
    """An encoder whose norms come last: its layers and their halves may go, each alone."""

    def __init__(self, prefix: str = "encoder") -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True, dropout=0.0)
        self.inp, self.out, self.prefix = nn.Linear(8, 12), nn.Linear(12, 4), prefix
        self.add_module(prefix, nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.out(self.get_submodule(self.prefix)(self.inp(x.squeeze(1))).mean(1))
        return made


@functools.cache
def task(prefix: str = "encoder") -> autoprune.PreparedTask:
    torch.manual_seed(0)
    return image_task(model=Encoder(prefix).eval(), require_trained=False)


@functools.cache
def topology(name: str = "") -> Topology:
    if not name:
        return TrialContext.of(task()).topology
    model, inputs = build_any(name)
    return discover_structure(model.eval(), inputs)


def sections(found: Explanation) -> dict[str, Section]:
    return {section.kind: section for section in found.sections}


def listed(found: Explanation, *, searched: bool = True) -> list[str]:
    return [part.name for section in found.sections if section.searched == searched for part in section.parts]


@pytest.mark.parametrize(
    "kinds",
    [
        ("channels", "heads", "head_width"),
        ("layers",),
        ("blocks",),
        ("layers", "heads", "channels"),
        ("blocks", "layers"),
        PRUNING_KINDS,
    ],
    ids="+".join,
)
@pytest.mark.parametrize("model", ["", "hf_gpt2", "resnet"])
def test_what_is_listed_as_searched_is_what_a_study_chooses_from(kinds: tuple[str, ...], model: str) -> None:
    """With one ratio per group and one choice per block, parameters and parts are the same, and none twice."""
    space = space_of(space="direct", kinds=kinds)
    found = explain_topology(topology(model), space)
    of_study = topology(model).only(kinds)
    drops = {name.removeprefix("drop/") for name in distributions(space, of_study) if name.startswith("drop/")}
    assert sorted(listed(found)) == sorted([*drops, *of_study.widths])
    assert found.to_dict()["space"] == as_data(found)["space"]
    for section in found.sections:
        assert bool(section.parts) != bool(section.none), section.kind
        assert section.searched == (section.kind in kinds)


def as_data(found: Explanation) -> dict[str, object]:
    parsed = json.loads(json.dumps(found.to_dict()))
    assert isinstance(parsed, dict)
    return parsed


def test_a_layer_that_is_nothing_but_its_halves_is_named_and_no_choice() -> None:
    found = sections(explain_topology(topology("hf_gpt2"), space_of(kinds=("blocks", "layers"))))
    whole = ("transformer.h.0", "transformer.h.1")
    assert found["layers"].parts == ()
    assert found["layers"].together == whole
    assert found["layers"].none == f"No separate choice, as they only combine blocks: {', '.join(whole)}."
    alone = sections(explain_topology(topology("hf_gpt2"), space_of(kinds=("layers",))))
    assert tuple(part.name for part in alone["layers"].parts) == whole
    assert alone["layers"].together == ()


def test_names_are_whole_and_work_in_plans_and_in_protect(capsys: pytest.CaptureFixture[str]) -> None:
    """Copied out of what a narrow terminal shows."""
    long = task(LONG)
    space = space_of(kinds=("layers", "heads", "channels"))
    show(autoprune.explain(long, space))
    printed = capsys.readouterr().out
    assert "…" not in printed
    groups, blocks = (copied(printed, column) for column in ("group", "layer"))
    assert blocks == [f"{LONG}.layers.{n}" for n in (0, 1)]
    assert f"{LONG}.layers.0.self_attn" in groups
    context = TrialContext.of(long)
    assert {*groups} == {*context.topology.widths}
    for name in groups:
        plan = PruningPlan(seed=0, groups={name: GroupPlan(count=1)}, recovery=RecoveryPlan(steps=0))
        kept = evaluate_plan(context, plan).kept.widths
        assert kept[name] == context.topology.widths[name] - 1
    dropped = evaluate_plan(context, PruningPlan(seed=0, dropped=tuple(blocks), recovery=RecoveryPlan(steps=0)))
    assert dropped.kept.dropped == tuple(blocks)
    left = context.topology.protected((groups[0], blocks[1]))
    assert groups[0] not in left.widths
    assert [block.name for block in left.blocks if block.repeated] == blocks[:1]


def copied(printed: str, column: str) -> list[str]:
    """The names in the tables with that column."""
    found, inside = [], False
    for line in printed.splitlines():
        if not line.strip():
            inside = False
        elif re.search(rf" {column}\b", line) and "parameters" in line:
            inside = True
        elif inside and "%" in line:
            found.append(line.split("%")[-1].split()[0])
    return found


@pytest.mark.parametrize("columns", ["30", "80", "300"])
def test_no_terminal_cuts_a_name(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    found = autoprune.explain(task(LONG), space_of(kinds=PRUNING_KINDS))
    show(found)
    printed = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "…" not in printed
    lines = {line.strip() for line in printed.splitlines()}
    for name in listed(found):
        assert any(re.search(rf"(^|\s){re.escape(name)}($|\s)", line) for line in lines), name


def test_json_holds_it_all() -> None:
    space = space_of(kinds=("layers", "heads", "channels"))
    found = autoprune.explain(task(), space)
    data = as_data(found)
    model, parts = data["model"], {section["kind"]: section for section in data["sections"]}  # type: ignore[attr-defined]
    whole = topology().cost({})
    assert model == {
        "parameters": whole.parameters,
        "multiply_adds": whole.multiply_adds,
        "size_bytes": whole.size_bytes,
    }
    for kind in ("channels", "heads", "head_width"):
        for part in parts[kind]["parts"]:
            group = topology().group(part["name"])
            assert part["channels"] == group.channels
            assert [(m["tensor"], m["axis"], m["role"], m["positions"]) for m in part["members"]] == [
                (m.tensor, m.axis, m.role, m.index.shape[1]) for m in group.members
            ]
            half = topology().cost({group.name: group.channels // 2})
            assert part["saved"]["multiply_adds"] == whole.multiply_adds - half.multiply_adds
            assert (part["fewest"] is None) == (kind not in space.structure.kinds)
    for part in parts["layers"]["parts"]:
        assert part["exact"] is False
        left = topology().cost({}, (part["name"],))
        assert part["saved"]["parameters"] == whole.parameters - left.parameters
        assert part["multiply_adds"] == pytest.approx(1 - left.multiply_adds / whole.multiply_adds)
    assert [part["name"] for part in parts["blocks"]["parts"]] == [
        f"encoder.layers.{n}.{half}" for n in (0, 1) for half in ("self_attn", "linear1")
    ]
    (left_alone,) = data["left_alone"]  # type: ignore[misc]
    assert (left_alone["module"], left_alone["kind"], left_alone["channels"]) == ("out", "output", 4)
    assert left_alone["docs"] == "docs/left_alone.md#part-of-the-output"
    assert {stay["kind"] for stay in parts["layers"]["stay"]} == {"reshaping"}


class Plain(nn.Module):
    """No row of equal modules, no addition, no attention; and a sort."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 9), nn.Linear(9, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(torch.relu(self.second(torch.relu(self.first(x.flatten(1))))).sort(1).values)
        return made


def test_a_kind_that_was_asked_for_and_is_not_there_says_why() -> None:
    plain = image_task(model=Plain().eval(), require_trained=False)
    found = autoprune.explain(plain, space_of(kinds=("channels", "heads", "blocks", "layers")))
    whys = {kind: section.none for kind, section in sections(found).items()}
    assert whys["channels"] == ""
    assert whys["heads"] == "No heads can go: no attention with several heads was found."
    assert whys["blocks"] == "No blocks can go: no module was found that computes what is added to an earlier value."
    assert whys["layers"].startswith(
        "No layers can go: each of first, second and 1 more gives another shape or type than it takes. Nothing can"
    )
    text = re.sub(r"\s+", " ", found.text())
    for kind in ("heads", "blocks", "layers"):
        assert whys[kind] in text


def test_layers_that_are_not_exact_and_modules_that_are_no_layers_are_explained_below_their_table() -> None:
    found = autoprune.explain(task(), space_of(kinds=("layers",)))
    assert any(part.exact is False for part in sections(found)["layers"].parts)
    text = re.sub(r"\s+", " ", found.text())
    assert "It is proved that the model runs without it; the effect on the quality is not known." in text
    assert "Not among them: each of inp and out gives another shape or type than it takes." in text
    exact = re.sub(r"\s+", " ", explain_topology(topology("hf_gpt2"), space_of(kinds=("layers",))).text())
    assert "Not exact" not in exact


def test_what_is_protected_is_no_more_there_and_says_so() -> None:
    left = topology().protected(("encoder.*",))
    for kind in ("heads", "blocks", "layers"):
        why = sections(explain_topology(left, space_of(kinds=PRUNING_KINDS)))[kind].none
        assert "is protected by the pattern 'encoder.*'" in why, kind
        assert PROTECTED.remedy in why, kind


def test_heads_that_the_trace_leaves_alone_say_why() -> None:
    class Ranked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.qkv, self.out = nn.Linear(8, 12), nn.Linear(12, 36), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(x)
            q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4)
            made = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
            made = made.sort(1).values  # over the heads
            result: Tensor = self.out(made.transpose(1, 2).reshape(*x.shape[:2], -1))
            return result

    found = sections(explain_topology(discover_structure(Ranked().eval(), torch.randn(3, 5, 8)), SpaceSettings()))
    assert re.match(r"No heads can go: qkv is ranked or counted over its channels \(torch.sort in", found["heads"].none)
    assert "Use values instead of ranks" in found["heads"].none


def causes_of(found: Explanation, kind: str) -> str:
    (cause,) = [cause for cause in found.causes() if cause.docs.endswith(kind)]
    text = re.sub(r"\s+", " ", found.text())
    assert f"-> {cause.remedy} ({cause.docs})" in text
    return cause.remedy


def test_a_packed_sequence_and_a_bare_encoder_have_their_remedies_in_the_text() -> None:
    """And these are remedies: with them nothing is left alone for that reason."""
    inputs = (torch.randn(3, 5, 6), torch.tensor([5, 3, 2]))
    packed = explain_topology(discover_structure(Recurrent(packed=True).eval(), inputs), SpaceSettings())
    assert "multiply its output by a mask" in causes_of(packed, "#packed-sequences")
    assert "pad_packed_sequence in the model's own forward, tests/unit/trace/test_reasons.py:" in packed.text()
    masked = explain_topology(discover_structure(Recurrent(packed=False).eval(), inputs), SpaceSettings())
    assert [cause.docs.partition("#")[2] for cause in masked.causes()] == ["part-of-the-output"]

    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 16, batch_first=True), 2)
    bare = nn.Sequential(nn.Linear(8, 12), encoder).eval()
    found = explain_topology(discover_structure(bare, torch.randn(3, 5, 8)), SpaceSettings())
    assert "returns only the part you use: a pooled vector" in causes_of(found, "#part-of-the-output")
    assert "0" not in listed(found), "the residual is all of the output"
    wrapped = explain_topology(discover_structure(Encoder().eval(), torch.randn(3, 1, 5, 8)), SpaceSettings())
    assert "inp" in listed(wrapped)
    assert [row.module for row in wrapped.left_alone] == ["out"]


def test_the_command_prints_what_python_does(tmp_path: Path) -> None:
    script = write(tmp_path)
    answer = command("explain", script, "--all")
    assert answer.code == 0, answer.text
    as_json = command("explain", script, "--json")
    assert as_json.code == 0, as_json.text
    data = json.loads(as_json.out)
    assert answer.out.startswith(f"The task: {data['task']}\n")
    names = [part["name"] for section in data["sections"] for part in section["parts"]]
    assert names[:3] == ["0", "3", "6"]
    found = autoprune.explain(image_task())
    assert str(found) == found.text()
    assert found.text(everything=True).startswith(f"The task: {found.task}\n")
    assert as_data(found).keys() == data.keys()


def test_what_a_script_prints_is_no_json(tmp_path: Path) -> None:
    script = write(tmp_path, change='print("loading")')
    answer = command("explain", script, "--json")
    assert json.loads(answer.out)["space"]["recovery"]["steps"] == 5
    assert "loading" in answer.err


def test_blocks_that_are_not_searched_are_no_blocks_that_are_not_there() -> None:
    why = why_none("blocks", topology().only(("channels", "layers")))
    assert re.match(r"No blocks can go: each of .* is left whole by kinds=\('channels', 'layers'\)", why)
    assert why_none("layers", topology().only(("channels", "layers"))) == ""


def test_objectives_that_the_task_lacks_are_refused_as_by_a_run() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'recall'"):
        autoprune.explain(task(), autoprune.StudySettings(objectives=("quality", "size_bytes", "recal")))
    with pytest.raises(UnknownNameError, match="Did you mean 'min_recall'"):
        autoprune.explain(task(), autoprune.StudySettings(limits=autoprune.Limits(min_recal=0.5)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (space_of(criteria=("bn_scale",)), "bn_scale"),
        (space_of(protect=("*",)), "nothing to prune"),
    ],
    ids=["criterion", "nothing left"],
)
def test_what_a_study_would_refuse_is_said(settings: SpaceSettings, said: str) -> None:
    """The structure is still explained, as that is what helps to mend the settings."""
    refused = [note for note in autoprune.explain(task(), settings).notes if "is refused" in note]
    assert len(refused) == 1
    assert said in refused[0]
    assert not [note for note in autoprune.explain(task(), SpaceSettings()).notes if "is refused" in note]
