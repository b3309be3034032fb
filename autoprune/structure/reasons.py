"""Define the reasons for which channels are left alone, each with a remedy.

A rule of the trace freezes channels with a `ReasonKind` of this file; the proof and the settings withdraw groups with
others. The page docs/left_alone.md explains each at length, and a test keeps both in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The page that has a section for every kind.
PAGE = "docs/left_alone.md"


@dataclass(frozen=True, slots=True)
class ReasonKind:
    """A kind of reason.

    Attributes:
        name: Name that is stored.
        title: Heading of its section in the docs.
        words: Words that follow the name of a layer; `{detail}` in them is filled in.
        remedy: What the user can do about it, in sentences.
    """

    name: str
    title: str
    words: str
    remedy: str

    @property
    def anchor(self) -> str:
        """Link to its section of the docs, from the root of the repository."""
        return f"{PAGE}#{self.title.lower().replace(' ', '-').replace(',', '')}"


OUTPUT = ReasonKind(
    "output",
    "Part of the output",
    "is part of the model's output",
    "Nothing to do for scores and predictions. If an encoder returns hidden states, wrap it so that it returns only "
    "the part you use: a pooled vector, the output of your head.",
)
UNMADE = ReasonKind(
    "fixed_values",
    "Values that no layer makes",
    "is combined with values that no layer makes",
    "If forward computes the values or holds them as numbers, such as positions: make them in __init__ and keep them "
    "with register_buffer, so that they are cut as well. If they are the model's input: apply a layer to it first.",
)
ALONG_PLACES = ReasonKind(
    "along_places",
    "One value for each place",
    "is combined with values for each place of the input, such as a token or a step",
    "Nothing to do: the number of places follows the input. The hidden channels of layers that mix places are "
    "pruned; fewer places take smaller inputs or larger patches.",
)
PICKED = ReasonKind(
    "picked",
    "Picked by number",
    "is picked by its number",
    "After a cut the numbers would mean other channels. Take parts with chunk or split, or make each part with a layer "
    "of its own.",
)
RANKED = ReasonKind(
    "ranked",
    "Ranked or counted",
    "is ranked or counted over its channels",
    "A rank depends on all channels. Use values instead of ranks (softmax, a gate, max), or rank along another axis.",
)
ACCUMULATED = ReasonKind(
    "accumulated",
    "Accumulated over channels",
    "is accumulated over its channels",
    "Each value needs all channels before it. Accumulate along time or places, and let a layer mix the channels.",
)
ROLLED = ReasonKind(
    "rolled",
    "Rolled channels",
    "is rolled by a fixed number of positions",
    "Roll along time or places; to exchange channels use a convolution of kernel size 1.",
)
TRIANGULAR = ReasonKind(
    "triangular",
    "Masked by number",
    "is masked by its number",
    "Nothing to do for masks over time. Channels: keep the mask as a buffer and multiply by it.",
)
PADDED = ReasonKind(
    "padded",
    "Padded channels",
    "is padded with constant channels",
    "Widen with a layer in place of constant channels, such as a shortcut of nn.Conv2d(narrow, wide, 1).",
)
CROPPED = ReasonKind(
    "cropped",
    "Cropped channels",
    "is cropped by a fixed number of channels",
    "Narrow with a layer, or take parts with chunk, in place of a negative padding.",
)
PLACES = ReasonKind(
    "places",
    "Places in the way of channels",
    "is resampled, packed or moved as a place in time or space",
    "Nothing to do for places. Channels: move them with permute to the axis that the operator takes for channels.",
)
GROUPED = ReasonKind(
    "grouped",
    "One channel for each group",
    "is one channel for each group of a convolution",
    "Use groups of several channels, groups=1, or as many groups as inputs and outputs (depthwise).",
)
EMPTY = ReasonKind(
    "empty",
    "Reshaped while empty",
    "is reshaped while it is empty",
    "Give example_inputs with which no tensor there is empty.",
)
LARGE = ReasonKind(
    "large_grid",
    "Flattened into very many positions",
    "is flattened with another axis of channels into very many positions",
    "Project to fewer channels before an outer product is flattened, or sum over one of its sides.",
)
UNEQUAL = ReasonKind(
    "unequal_parts",
    "Split into unequal parts",
    "is split into parts of unequal width",
    "Keep the width of each part as a whole number of the module (self.width = 64) and split by these, or make each "
    "part with a layer of its own.",
)
STRIDED = ReasonKind(
    "strided",
    "Read with other strides",
    "is read with other strides",
    "Use view, permute, expand or unfold in place of as_strided.",
)
SEVERAL_AXES = ReasonKind(
    "several_axes",
    "Normalised over several axes",
    "is normalised together with other axes",
    "Normalise channels alone: nn.GroupNorm(1, channels), or nn.LayerNorm(channels) with the channels last.",
)
ROW = ReasonKind(
    "table_row",
    "Rows of a table",
    "is a row of a table",
    "Nothing to do: rows, such as words, are looked up by number. The columns of the table are channels.",
)
UNKNOWN = ReasonKind(
    "unknown_operator",
    "Operators without a rule",
    "passes an operator that is not understood",
    "Write it with operators that are understood, or add a rule (CONTRIBUTING.md, a new operator in the trace).",
)
UNKNOWN_USE = ReasonKind(
    "unknown_use",
    "Unusual uses of an operator",
    "passes an operator in a use that is not understood",
    "Call it in its usual form, with the channels on the axis that it takes for channels.",
)
FOURIER = ReasonKind(
    "fourier",
    "Fourier transforms and complex numbers",
    "passes a Fourier transform or complex numbers",
    "Complex numbers are not followed. Put a layer before and after each such step; the layers between and beside the "
    "steps are pruned.",
)
QUANTISED = ReasonKind(
    "quantised",
    "Quantisation-aware training",
    "passes a quantiser",
    "Prune first and quantise the candidate: observers and fake quantisers go into the model afterwards.",
)
PACKED = ReasonKind(
    "packed",
    "Packed sequences",
    "passes a packed sequence that is unpacked",
    "Leave pack_padded_sequence out: run the layer on the padded batch and multiply its output by a mask.",
)
PARAMETRISED = ReasonKind(
    "parametrised",
    "Computed weights",
    "has a weight whose channels are computed of each other, as in spectral_norm",
    "Compute it once and for all before the search: torch.nn.utils.parametrize.remove_parametrizations(layer, "
    "'weight'), or torch.nn.utils.remove_spectral_norm(layer).",
)
TRACE_TIME = ReasonKind(
    "trace_time",
    "Too late in the trace",
    "comes after {detail} of tracing",
    "Give smaller example_inputs: fewer steps, shorter sequences, smaller images.",
)
NOT_MADE = ReasonKind(
    "not_made",
    "Made by no layer",
    "has channels that no layer makes",
    "Nothing to do: it is a parameter beside the layers whose channels nothing else shares.",
)
NOT_READ = ReasonKind(
    "not_read",
    "Read by no layer",
    "has channels that no layer reads",
    "Its output is summed up at once or not needed. Leave the layer out, or let another layer read its output.",
)
COUPLED = ReasonKind(
    "coupled",
    "All channels coupled",
    "has all its channels coupled into one",
    "Something joins each channel with every other, such as many shuffles of halves in a row. Leave that out, or drop "
    "whole blocks.",
)
FEWEST = ReasonKind(
    "fewest",
    "As narrow as it can be",
    "has as few channels as its module allows",
    "Widen it before training; a recurrent layer has more hidden units than proj_size.",
)
ONE_CHANNEL = ReasonKind("one_channel", "One channel", "makes one channel", "Nothing to do.")
UNUSED = ReasonKind(
    "not_used",
    "Not used on the example inputs",
    "is not used on the example inputs; inputs that reach it may not run once what it reads is cut",
    "Give example_inputs that reach it, with the optional arguments that you use.",
)
DIFFERS = ReasonKind(
    "differs",
    "Outputs that change",
    "cutting it changes the outputs {detail}, beyond what its channels did",
    "The code depends on the number of channels: a scale or mean taken from it, or a width written as a number. Keep "
    "such numbers on the module as they are for the dense model, and pass scale= to scaled_dot_product_attention.",
)
NOT_RUNNING = ReasonKind(
    "not_running",
    "Sizes written in code",
    "the model does not run once it is cut ({detail})",
    "The code at that line contains a size, or reads it from a tensor that keeps its width. Read the size from the "
    "tensor that is reshaped (x.shape[1], flatten, -1), or keep it as a whole number of the module (self.width), which "
    "is updated by a cut.",
)
OTHER_PATH = ReasonKind(
    "other_path",
    "Paths that values decide on",
    "the model does not run once it is silenced ({detail})",
    "Compute all paths and weigh them, or decide by values that do not come from this layer.",
)
OTHER_SHAPE = ReasonKind(
    "other_shape",
    "Outputs of another shape",
    "cutting it gives outputs of another number or shape than silencing it",
    "Return outputs of a fixed width: add a layer after it, or reduce it over its channels.",
)
NOT_TRAINING = ReasonKind(
    "not_training",
    "Sizes written in code of training mode",
    "the model does not run in training mode once it is cut ({detail})",
    "A size is written in code that only training mode runs. Read it from the tensor, or keep it as a whole number of "
    "the module.",
)
PROOF_TIME = ReasonKind(
    "proof_time",
    "Too late in the proof",
    "was not proved in the time that proving may take",
    "Give smaller example_inputs: two or three samples, shorter sequences, smaller images.",
)
NO_EFFECT = ReasonKind(
    "no_effect",
    "Without effect on the example inputs",
    "cutting it changes nothing in the outputs on the example inputs, so that a wrong cut would not be seen",
    "Give example_inputs on which it has an effect: more samples, lengths above one, a gate that is open.",
)
PROTECTED = ReasonKind(
    "protected",
    "Protected",
    "is protected by the pattern {detail}",
    "Take the pattern out of protect if it may be pruned.",
)
NOT_SEARCHED = ReasonKind(
    "not_searched",
    "Not searched",
    "is left whole by kinds={detail}",
    "Add its kind to structure.kinds.",
)
RESHAPING = ReasonKind(
    "reshaping",
    "Layers that change the shape",
    "gives another shape or type than it takes",
    "Nothing can replace it. Its channels can be pruned, and so can layers of a list whose output has the shape of "
    "their input.",
)
NO_ROW = ReasonKind(
    "no_row",
    "No row of equal layers",
    "is not one of several equal modules in a row",
    "Stack equal modules in an nn.ModuleList or nn.Sequential, each applied to the output of the one before, or add "
    "its output to its input, which makes it a block.",
)
SHARED = ReasonKind(
    "shared_weights",
    "Shared weights",
    "shares weights with other modules",
    "Give the layer separate weights if it should be droppable by itself.",
)
UNCLEAR = ReasonKind(
    "unclear_output",
    "Layers of which it is not clear what they give",
    "gives more than one tensor, or channels that are not those of a weight",
    "Return one tensor, as wide as a weight of the layer, as the first output, and do the same at every call.",
)
NEEDED = ReasonKind(
    "needed",
    "Needed by other code",
    "cannot go: the model {detail}",
    "Code outside the layer reads its weights or settings, or counts its outputs. Keep values that other code needs on "
    "the model, outside its layers.",
)
NEEDED_ONE = ReasonKind(
    "needed_together",
    "Needed as one of several",
    "cannot go together with others: the model does not run without all of them",
    "Code needs one of them, for example to stack their outputs. The others can be dropped.",
)
INEXACT = ReasonKind(
    "inexact",
    "Blocks that are more than what they add",
    "is no block: leaving it out is not the same as setting its weights to zero ({detail})",
    "Add its output directly to an earlier value, and let nothing else read that output. Members of a list of equal "
    'modules can be dropped in any case: kinds=("layers",).',
)
#: A reason of which only the stored words are known.
OTHER = ReasonKind("other", "Other reasons", "{detail}", "Look at the layer with autoprune explain.")

#: Name -> kind, all of them.
REASON_KINDS: Mapping[str, ReasonKind] = {
    kind.name: kind for kind in list(globals().values()) if isinstance(kind, ReasonKind)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """The reason for which channels are left alone, with its place.

    Attributes:
        kind: One of `REASON_KINDS`.
        detail: Value for `{detail}` in the words of the kind, such as the message of an error.
        note: Further words, which follow a semicolon.
        operator: Name of the operator in torch; "" if there is none to name.
        module: The innermost running module; "" for the model itself.
        line: `file:line` of the code outside torch that called the operator; "" if it is unknown.

    Example:
        >>> Reason(kind=PICKED, operator="torch.index_select", module="head", line="net.py:12").text
        'is picked by its number (torch.index_select in head, net.py:12)'
    """

    kind: ReasonKind
    detail: str = ""
    note: str = ""
    operator: str = ""
    module: str = ""
    line: str = ""

    @property
    def words(self) -> str:
        """The reason without its place, in words that follow the name of a layer."""
        return "; ".join(filter(None, (self.kind.words.format(detail=self.detail), self.note)))

    @property
    def place(self) -> str:
        """Operator, module and line, as far as they are known; "" if none is."""
        where = f"in {self.module}" if self.module else "in the model's own forward" if self.operator else ""
        what = " ".join(filter(None, (self.operator, where)))
        return ", ".join(filter(None, (what, self.line)))

    @property
    def text(self) -> str:
        """The reason and its place, in words."""
        return f"{self.words} ({self.place})" if self.place else self.words
