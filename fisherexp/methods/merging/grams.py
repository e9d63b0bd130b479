"""Gram matrices of the inputs of linear layers, XᵀX with one row of X for each sample, summed in one pass."""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.methods.method import ModelMethod
from fisherexp.quantization import input_rows
from fisherexp.ranks import over_ranks
from fisherexp.scenarios.setting import Setting


class GramPass(ModelMethod):
    """One epoch that changes nothing and leaves `sums`: name of a linear layer -> XᵀX (d, d), float64.

    A bias adds no column of ones: it is merged apart. Inputs with further axes count each vector as a sample, padding
    none.
    """

    start = "source"
    steps_itself = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.sums: dict[str, Tensor] = {}
        self.counted: Tensor | None = None  # tokens (B, T) of the batch at hand that are no padding
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                self.sums[name] = torch.zeros(layer.in_features, layer.in_features, dtype=torch.float64)
                layer.register_forward_pre_hook(self._adding_to(name))

    def _adding_to(self, name: str) -> Any:
        def add(layer: nn.Linear, inputs: tuple[Tensor]) -> None:
            x = input_rows(layer, inputs[0].detach(), self.counted).double()
            self.sums[name] = self.sums[name].to(x.device) + x.T @ x

        return add

    def batches(self, setting: Setting) -> Any:
        return setting.loader(self.fits_on)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.model.eval()
        self.counted = batch.attention_mask
        with torch.no_grad():
            self.model(batch.inputs)

    def on_train_end(self) -> None:
        self.sums = over_ranks(self.sums)

    def configure_optimizers(self) -> None:
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["sums"] = dict(self.sums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.sums = checkpoint["sums"]
