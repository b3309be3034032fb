"""What stands in the place of a residual block that was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType

from torch import Tensor, nn

from autoprune.errors import SurgeryError, fault
from autoprune.trace.topology import Block


class Skip(nn.Module):
    """Gives back the input that the block would have added to, in the form in which the block gave its output.

    Plain values that the block held stay readable, since models look at some of them; nothing that could keep its
    weights alive does.
    """

    def __init__(self, block: Block, module: nn.Module) -> None:
        super().__init__()
        own = vars(self)
        for name, value in vars(module).items():
            if name not in own and not name.startswith("_") and _is_plain(value):
                own[name] = value
        self._skipped = block
        self.training = module.training

    def forward(self, *args: object, **kwargs: object) -> object:
        """The input; None for whatever else the block gave."""
        source = self._skipped.source
        value = args[source] if isinstance(source, int) else kwargs[source]
        if self._skipped.position is None:
            return value
        return tuple(value if place == self._skipped.position else None for place in range(self._skipped.outputs))

    def __prepare_scriptable__(self) -> nn.Module:
        """Give torch.jit.script, which knows no variable arguments, an identity where the block takes one tensor."""
        is_identity = self._skipped.source == 0 and self._skipped.position is None
        return nn.Identity() if is_identity else self


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return not isinstance(value, Tensor | nn.Module | Mapping | set | MethodType)


def skip(model: nn.Module, block: Block) -> None:
    """Put a Skip in the place of a block, in place; every use of it is skipped."""
    try:
        module = model.get_submodule(block.name)
    except AttributeError as error:
        raise SurgeryError(fault("a block to drop", "be a module of the model", repr(block.name))) from error
    if isinstance(module, Skip):
        return
    replacement = Skip(block, module)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is module:
                parent._modules[name] = replacement
