"""Find the reason that an operator freezes channels for, with the module and the line of code."""

from __future__ import annotations

from collections.abc import Mapping
from types import CodeType

from autoprune.structure.reasons import FOURIER, PACKED, PARAMETRISED, QUANTISED, RANKED, Reason, ReasonKind
from autoprune.trace.operators import CallSite, readable_name

#: Operators without a rule whose reason is more specific than "no rule".
WITHOUT_RULE: Mapping[str, ReasonKind] = {
    **dict.fromkeys(("kthvalue", "median", "mode", "msort", "bincount", "unique_dim", "_unique2"), RANKED),
    **dict.fromkeys(("_fft_r2c", "_fft_c2c", "_fft_c2r", "view_as_complex", "view_as_real", "complex"), FOURIER),
    **dict.fromkeys(("polar", "real", "imag", "_conj", "angle", "stft", "istft"), FOURIER),
    **dict.fromkeys(
        (
            "fake_quantize_per_tensor_affine_cachemask",
            "fake_quantize_per_channel_affine_cachemask",
            "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
            "_fake_quantize_learnable_per_tensor_affine",
            "_fake_quantize_learnable_per_channel_affine",
            "_fused_moving_avg_obs_fq_helper",
            "fused_moving_avg_obs_fake_quant",
            "quantize_per_tensor",
            "quantize_per_channel",
        ),
        QUANTISED,
    ),
}

#: Functions of torch -> the reason for anything frozen inside them, whatever operators they are made of.
FUNCTIONS: Mapping[str, ReasonKind] = {"pad_packed_sequence": PACKED, "compute_weight": PARAMETRISED}
#: Modules that torch adds to a model under these names -> the reason for anything frozen inside them.
MODULES: Mapping[str, ReasonKind] = {
    "parametrizations": PARAMETRISED,
    **dict.fromkeys(("activation_post_process", "weight_fake_quant"), QUANTISED),
}


def locate_reason(kind: ReasonKind, detail: str, where: tuple[str, str], until: CodeType | None) -> Reason:
    """Return the reason for channels that the current operator freezes, with its place.

    Args:
        kind: Kind of the reason, unless the operator runs inside a function or module that has its own.
        detail: Detail of the reason.
        where: (operator, module) at work; the operator is "" after the forward.
        until: Code of the function that ran the model; the stack is searched up to it. None to search all of it.

    Returns:
        The reason, with operator, module and line.
    """
    operator, module = where
    if not operator:
        return Reason(kind=kind, detail=detail, module=module)
    call = CallSite.of(until)
    for function in call.functions & FUNCTIONS.keys():
        return Reason(kind=FUNCTIONS[function], operator=readable_name(function), module=module, line=call.line)
    kind = next((MODULES[part] for part in module.split(".") if part in MODULES), kind)
    return Reason(kind=kind, detail=detail, operator=readable_name(operator), module=module, line=call.line)
