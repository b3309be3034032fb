"""Counted peak memory of inference, against the peak of torch's allocator.

    python -m benchmarks.peak_memory

The measured peak is the largest sum of the allocations that torch's profiler records during one call after a warm-up,
operators' workspace included, and the bytes of parameters, buffers and inputs, which were there before. Weights are
random. Seconds are those of the count and of one plain call, the median of three in turn.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median

import torch
import typer
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_iter

from autoprune.measure.memory import peak_memory
from autoprune.task.data import Inputs, call, eval_mode
from benchmarks.models import UNet, mobilenet_v2, resnet18, resnet50, vgg16
from benchmarks.reporting import print_machine, print_table

_MEBIBYTE = 2**20


def vit_b(depth: int = 12) -> nn.Module:
    """Dosovitskiy et al. (2021), 86 M parameters, from transformers."""
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_hidden_layers=depth))


def bert_base(depth: int = 12) -> nn.Module:
    """Devlin et al. (2019), 109 M parameters, from transformers."""
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(num_hidden_layers=depth))


def allocated_peak(model: nn.Module, inputs: Inputs) -> int:
    """Bytes of parameters, buffers and inputs, and the largest sum of allocations during one call."""
    with torch.no_grad(), eval_mode(model):
        call(model, inputs)
        gc.collect()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            call(model, inputs)
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    before = [*model.parameters(), *model.buffers(), *tree_iter(inputs)]
    return peak + sum(tensor.numel() * tensor.element_size() for tensor in before if isinstance(tensor, Tensor))


def _images(samples: int) -> Tensor:
    return torch.randn(samples, 3, 224, 224)


#: Name -> (model, inputs) of one call.
MODELS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "ResNet-18, 4 images of 224 pixels": lambda: (resnet18(), _images(4)),
    "ResNet-50, 4 images of 224 pixels": lambda: (resnet50(), _images(4)),
    "VGG-16, 1 image of 224 pixels": lambda: (vgg16(), _images(1)),
    "MobileNetV2, 4 images of 224 pixels": lambda: (mobilenet_v2(), _images(4)),
    "U-Net, 2 images of 224 pixels": lambda: (UNet(), _images(2)),
    "ViT-B, 4 images of 224 pixels": lambda: (vit_b(), _images(4)),
    "BERT-base, 8 x 128 tokens": lambda: (bert_base(), {"input_ids": torch.randint(1000, (8, 128))}),
}


def main(repetitions: int = 3) -> None:
    """Count and measure the peak of each model."""
    torch.set_num_threads(1)
    print_machine()
    rows = []
    for name, build in MODELS.items():
        torch.manual_seed(0)
        model, inputs = build()
        counted, measured = peak_memory(model, inputs), allocated_peak(model, inputs)
        counting, calling = _seconds(model, inputs, repetitions)
        cells = (f"{counted / _MEBIBYTE:.1f}", f"{measured / _MEBIBYTE:.1f}", f"{counted / measured:.3f}")
        rows.append([name, *cells, f"{counting:.2f}", f"{calling:.2f}"])
    columns = ("model", "counted, MiB", "measured, MiB", "ratio", "count, s", "one call, s")
    print_table("Peak memory of one call in eval mode, weights and inputs included", columns, rows)


@torch.no_grad()
def _seconds(model: nn.Module, inputs: Inputs, repetitions: int) -> tuple[float, float]:
    counts, calls = [], []
    for _ in range(repetitions):
        start = time.perf_counter()
        peak_memory(model, inputs)
        between = time.perf_counter()
        with eval_mode(model):
            call(model, inputs)
        counts.append(between - start)
        calls.append(time.perf_counter() - between)
    return median(counts), median(calls)


if __name__ == "__main__":
    typer.run(main)
