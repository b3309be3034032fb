"""Name dispatched operators as users write them, and find the line of user code that called one."""

from __future__ import annotations

import functools
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import torch
from torch import Tensor

#: Operators whose name does not appear in user code -> the usual way to write them.
_WRITTEN: Mapping[str, str] = {
    **{name: f"x {sign} y" for name, sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("div", "/"), ("pow", "**"))},
    **{name: f"x {sign}= y" for name, sign in (("add_", "+"), ("sub_", "-"), ("mul_", "*"), ("div_", "/"))},
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "_trilinear"), "a matrix product"),
    **dict.fromkeys(("select",), "x[..., number]"),
    **dict.fromkeys(("index", "_unsafe_index"), "x[numbers]"),
    "slice": "x[start:end]",
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias"), "view or reshape"),
    "convolution": "a convolution",
    "constant_pad_nd": "torch.nn.functional.pad",
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), "batch_norm"),
    **dict.fromkeys(("_native_batch_norm_legit_no_training",), "batch_norm"),
    **{f"native_{name}": name for name in ("layer_norm", "group_norm", "dropout", "channel_shuffle")},
    "_fused_rms_norm": "rms_norm",
    "_weight_norm_interface": "weight_norm",
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), "softmax"),
    **dict.fromkeys(("_pack_padded_sequence",), "pack_padded_sequence"),
    "_pad_packed_sequence": "pad_packed_sequence",
    **dict.fromkeys(("im2col",), "torch.nn.functional.unfold"),
    "col2im": "torch.nn.functional.fold",
}
_BEGINNINGS: Mapping[str, str] = {
    "_fft_": "torch.fft",
    "upsample_": "interpolate",
    "_upsample_": "interpolate",
    "_adaptive_": "adaptive pooling",
    "_scaled_dot_product_": "scaled_dot_product_attention",
    "scaled_dot_product_": "scaled_dot_product_attention",
    "grid_sampler_": "grid_sample",
    "reflection_pad": "torch.nn.functional.pad",
    "replication_pad": "torch.nn.functional.pad",
    "fake_quantize_": "a fake quantiser",
    "_fake_quantize_": "a fake quantiser",
    "_fused_moving_avg_obs": "a fake quantiser",
}
#: Namespaces in which a name is looked up, in order.
_SPACES: tuple[tuple[str, object], ...] = (
    ("torch", torch),
    ("torch.nn.functional", torch.nn.functional),
    ("Tensor", Tensor),
)


@functools.cache
def readable_name(operator: str) -> str:
    """Return an operator as users write it.

    Args:
        operator: Its name, with the library before it if that is not torch: `torchvision::nms`.

    Returns:
        The function or expression.

    Example:
        >>> readable_name("cat"), readable_name("add"), readable_name("upsample_nearest2d"), readable_name("lib::mine")
        ('torch.cat', 'x + y', 'interpolate', 'lib::mine')
    """
    if operator in _WRITTEN:
        return _WRITTEN[operator]
    for beginning, written in _BEGINNINGS.items():
        if operator.startswith(beginning):
            return written
    return next((f"{space}.{operator}" for space, names in _SPACES if hasattr(names, operator)), operator)


class CallSite(NamedTuple):
    """The place in the code where an operator was called.

    Attributes:
        line: `file:line` of the innermost frame outside torch and autoprune; "" if there is none, as in a model made of
            torch's modules alone.
        functions: Names of torch's functions between that frame and the operator.
    """

    line: str
    functions: frozenset[str]

    @classmethod
    def of(cls, until: CodeType | None) -> CallSite:
        """Find the call site on the current stack.

        Args:
            until: Code of the function that ran the model; the search stops there. None to search the whole stack.

        Returns:
            The call site.
        """
        functions: list[str] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not until:
            code = frame.f_code
            if _is_theirs(code.co_filename):
                return cls(f"{_short(code.co_filename)}:{frame.f_lineno}", frozenset(functions))
            functions.append(code.co_name)
            frame = frame.f_back
        return cls("", frozenset(functions))


def raised_from(error: BaseException) -> str:
    """Return the line that raised an error.

    Args:
        error: The error, with its traceback.

    Returns:
        `file:line` of the innermost frame outside torch and autoprune; "" if there is none.
    """
    found, step = "", error.__traceback__
    while step is not None:
        if _is_theirs(step.tb_frame.f_code.co_filename):
            found = f"{_short(step.tb_frame.f_code.co_filename)}:{step.tb_lineno}"
        step = step.tb_next
    return found


#: Folders of torch and autoprune, whose code is not the user's.
_OURS = tuple(f"{path}/" for path in (Path(torch.__file__).parent, Path(__file__).parents[1]))
_PYTHON = (f"{sysconfig.get_path('stdlib')}/", "<frozen ")


@functools.cache
def _is_theirs(file: str) -> bool:
    # Packages may be installed inside the folder of the standard library.
    return not file.startswith(_OURS) and (not file.startswith(_PYTHON) or "-packages/" in file)


@functools.cache
def _short(file: str) -> str:
    """Return the path of a file relative to the folder that it was imported from."""
    folders = sorted({str(Path(folder).absolute()) for folder in ("", *sys.path)}, key=len, reverse=True)
    return next((file[len(folder) + 1 :] for folder in folders if file.startswith(f"{folder}/")), file)
