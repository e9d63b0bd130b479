"""RF8: the parameters of a trained model as one byte each, without training.

Wu et al., arXiv 2506.00486; the format is in rf8_format.py.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.files import write_atomically
from fisherexp.methods.compression.entropy_coding import buffers_of, raw_bytes, raw_tensors, tied_header, with_tied
from fisherexp.methods.compression.multiply_adds import multiply_adds
from fisherexp.methods.compression.rf8_format import Rounding, decode, encode
from fisherexp.methods.compression.stored_file import packed, unpacked
from fisherexp.methods.method import ModelMethod


def stored(model: nn.Module, rounding: Rounding = "nearest") -> bytes:
    """The file: parameters in RF8, each tensor with its largest exponent, and buffers as they are."""
    codes = {name: encode(parameter.detach().cpu(), rounding) for name, parameter in model.named_parameters()}
    buffers = buffers_of(model)
    header = {
        "parameters": {name: [largest, list(code.shape)] for name, (code, largest) in codes.items()},
        "buffers": {name: [str(buffer.dtype)[6:], list(buffer.shape)] for name, buffer in buffers.items()},
        **tied_header(model),
    }
    return packed(header, *(raw_bytes(code) for code, _ in codes.values()), *map(raw_bytes, buffers.values()))


def loaded(file: bytes) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    header, blocks = unpacked(file)
    found = {}
    for (name, (largest, shape)), block in zip(header["parameters"].items(), blocks, strict=False):
        found[name] = decode(torch.frombuffer(bytearray(block), dtype=torch.uint8).view(shape), largest)
    return with_tied(found | raw_tensors(header["buffers"], blocks[len(found) :]), header)


class RF8(ModelMethod):
    """rounding: 'nearest' as in the authors' code, or 'truncate'. Left in the run's folder: weights.rf8.

    outcome: under "metrics" stored_bytes, of that file; multiply_adds for one sample; largest_rounding_error, in %,
        of a parameter that is not stored as zero; and flushed, the number of those that are although they were not.
    """

    name = "rf8"
    paper = "Wu et al., 2025, arXiv 2506.00486"
    start = "source"
    steps_itself = True
    headings = {"stored_bytes": "stored\nbytes", "multiply_adds": "multiply\nadds"}
    better = {"stored_bytes": "lower", "multiply_adds": "lower"}

    def __init__(self, model: nn.Module, rounding: Literal["nearest", "truncate"]) -> None:
        super().__init__(model)
        self.rounding = rounding
        self.inputs: Any = None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.inputs = batch.inputs

    def configure_optimizers(self) -> None:
        return None

    @torch.no_grad()
    def on_train_end(self) -> None:
        file = stored(self.model, self.rounding)
        before = torch.cat([parameter.detach().cpu().flatten() for parameter in self.model.parameters()])
        self.model.load_state_dict(loaded(file))
        after = torch.cat([parameter.detach().cpu().flatten() for parameter in self.model.parameters()])
        kept = after != 0
        self.outcome["metrics"] = {
            "stored_bytes": len(file),
            "multiply_adds": sum(multiply_adds(self.model, self.inputs).values()),
            "largest_rounding_error": 100 * (after / before - 1)[kept].abs().max().item(),
            "flushed": int((before[~kept] != 0).sum()),
        }

    def leave_files(self, folder: Path) -> None:
        file = stored(self.model, self.rounding)
        write_atomically(folder / "weights.rf8", lambda temporary: temporary.write_bytes(file))
