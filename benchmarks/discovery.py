"""What it costs to find out what can be pruned: trace and proof of models in their published sizes.

    python -m benchmarks.discovery [--models resnet50,bert] [--seconds 120]

Each model runs in a separate process, with random weights and one torch thread. Processor time is that of
`discover_structure`; peak memory is what it needs on top of the model, by the kernel's count, over the bytes of the
model's weights. With --seconds the limit of the proof is set, and the time it took shows whether the limit held; the
trace that comes before it is measured separately, and has a separate limit. Beside the seconds stands how many
forwards of the dense model in float32 take as long, timed in the same process: that does not depend on the machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import typer
from torch import nn

from autoprune.proof.discover import PROOF_SECONDS, discover_structure
from autoprune.structure.topology import Topology
from autoprune.task.data import Inputs, call
from autoprune.trace.trace import trace
from benchmarks.memory import with_peak
from benchmarks.models import resnet50
from benchmarks.reporting import print_machine, print_table

Built = tuple[nn.Module, Inputs]


def main(models: str = "", seconds: float = PROOF_SECONDS, one: str = "") -> None:
    """Survey every model. one: name of a model to survey in this process, which prints its numbers as JSON."""
    torch.set_num_threads(1)
    if one:
        print(json.dumps(_measured(one, seconds)))
        return
    print_machine()
    chosen = models.split(",") if models else list(MODELS)
    rows = [_row(name, _in_process(name, seconds)) for name in chosen]
    times = ("processor time, s", "of it trace, s", "of it proof, s", "as many forwards")
    columns = ("model", "parameters", *times, "peak memory over the weights", "groups", "blocks", "left")
    print_table(f"Trace and proof, at most {seconds:g} s for the proof", columns, rows)


def _row(name: str, found: Mapping[str, float]) -> list[str]:
    return [
        name,
        f"{found['parameters'] / 1e6:.0f} M",
        f"{found['trace'] + found['proof']:.1f}",
        f"{found['trace']:.1f}",
        f"{found['proof']:.2f}",
        f"{(found['trace'] + found['proof']) / found['forward']:.0f}",
        f"{found['peak'] / found['bytes']:.1f}",
        f"{found['groups']:.0f}",
        f"{found['blocks']:.0f}",
        f"{100 * found['left']:.0f} %",
    ]


def _in_process(name: str, seconds: float) -> Mapping[str, float]:
    command = [sys.executable, "-m", "benchmarks.discovery", "--one", name, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(name: str, seconds: float) -> dict[str, float]:
    """Numbers of one discovery. left: share of the multiply-adds with every group halved."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    model.eval()
    discover_structure(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), torch.randn(2, 4)
    )  # loads torch's dispatcher
    times: list[float] = []

    def surveyed() -> Topology:
        start = time.process_time()
        found = discover_structure(model, inputs, seconds=seconds)
        times.append(time.process_time() - start)
        return found

    with _timed(times):
        topology, peak = with_peak(surveyed)
    halves = {group.name: max(group.min_channels, group.channels // 2) for group in topology.groups}
    return {
        "trace": times[0],
        "proof": times[-1] - times[0],
        "forward": _forward(model, inputs),
        "peak": peak,
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "groups": len(topology.groups),
        "blocks": len(topology.blocks),
        "left": topology.share(halves),
    }


def _forward(model: nn.Module, inputs: Inputs) -> float:
    """Processor time of a forward in float32: the median of seven."""
    found: list[float] = []
    with torch.inference_mode():
        for _ in range(7):
            start = time.process_time()
            call(model, inputs)
            found.append(time.process_time() - start)
    return statistics.median(found)


@contextmanager
def _timed(seconds: list[float]) -> Iterator[None]:
    """Note how long each trace takes in here: the first is no part of the proof."""

    def measured(*args: Any, **kwargs: Any) -> Topology:
        start = time.process_time()
        topology = trace(*args, **kwargs)
        seconds.append(time.process_time() - start)
        return topology

    with mock.patch("autoprune.proof.discover.trace", measured):
        yield


def _tokens(vocabulary: int) -> Inputs:
    return {"input_ids": torch.randint(vocabulary, (2, 32))}


def _resnet50() -> Built:
    return resnet50(), torch.randn(1, 3, 224, 224)


def _vit() -> Built:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig()), {"pixel_values": torch.randn(1, 3, 224, 224)}


def _swin() -> Built:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], embed_dim=96)
    return SwinForImageClassification(config), {"pixel_values": torch.randn(1, 3, 224, 224)}


def _bert() -> Built:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig()), _tokens(30_522)


def _gpt2() -> Built:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(use_cache=False)), _tokens(50_257)


def _llama(width: int, layers: int, hidden: int) -> Built:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=hidden,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 256,
        vocab_size=32_000,
        use_cache=False,
    )
    return LlamaForCausalLM(config), _tokens(32_000)


#: Name -> the model with random weights, and inputs for it.
MODELS: Mapping[str, Callable[[], Built]] = {
    "resnet50": _resnet50,
    "vit": _vit,
    "swin": _swin,
    "bert": _bert,
    "gpt2": _gpt2,
    "llama-120m": lambda: _llama(768, 10, 2048),
    "llama-1b": lambda: _llama(2048, 18, 5632),
}

if __name__ == "__main__":
    typer.run(main)
