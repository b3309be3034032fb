"""What stands in the place of a residual block that was dropped."""

from __future__ import annotations

from torch import Tensor, nn

from autoprune.errors import SurgeryError, fault
from autoprune.trace.topology import Block


class Skip(nn.Module):
    """Gives back the input that the block would have added to, in the form in which the block gave its output.

    block: what was dropped. Plain values that the block held stay readable, since models look at some of them.
    """

    def __init__(self, block: Block, module: nn.Module) -> None:
        super().__init__()
        own = vars(self)
        for name, value in vars(module).items():
            if name not in own and not name.startswith("_") and not isinstance(value, Tensor):
                own[name] = value
        self.block = block
        self.training = module.training

    def forward(self, *args: object, **kwargs: object) -> object:
        """The input; None for whatever else the block gave."""
        source = self.block.source
        value = args[source] if isinstance(source, int) else kwargs[source]
        if self.block.position is None:
            return value
        return tuple(value if place == self.block.position else None for place in range(self.block.outputs))


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
