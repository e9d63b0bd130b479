"""A few texts that a language model writes, beside those it was to write."""

import json
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.types import Count, NonNegative, Size
from fisherexp.data.batch import Batch
from fisherexp.files import write_text
from fisherexp.models.generation import generate
from fisherexp.models.greedy import greedy_decode
from fisherexp.models.huggingface import HuggingFace
from fisherexp.scenarios.setting import Setting


class Samples(Watcher):
    """Lets the finished model go on from the first samples of the last part it is evaluated on: samples.jsonl in the
    run's folder, with prompt, written and wanted in each line.

    count: how many. given: tokens of a sample that it is given, where it has no prompt that does not count.
    tokens: how many it writes at most. temperature, seed: see generation.generate. Networks that are no pretrained
        transformers write as far as a sample goes, and the most likely token each time.

    Raises ValueError, before training, for data that are no text, for a temperature of such a network, and for more
    tokens than a pretrained one takes.
    """

    def __init__(
        self, count: Count, given: Count, tokens: Count, temperature: NonNegative = 0.0, seed: Size = 0
    ) -> None:
        self.count, self.given, self.tokens = count, given, tokens
        self.temperature, self.seed = temperature, seed
        self.setting: Setting | None = None

    def fit_begins(self, setting: Setting) -> None:
        if setting.data.objective.likelihood != "sequence":
            raise ValueError(f"callbacks=samples: {setting.data.title} asks for no texts to be written")

    def test_begins(self, setting: Setting) -> None:
        self.fit_begins(setting)
        self.setting = setting

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        backbone = module.model.backbone
        if not isinstance(backbone, HuggingFace):
            if self.temperature:
                raise ValueError("callbacks.samples.temperature is for pretrained transformers; set it to 0")
        elif backbone.context is not None and self.tokens >= backbone.context:
            most = f"the model takes {backbone.context}, prompt included"
            raise ValueError(f"callbacks.samples.tokens={self.tokens}: {most}")

    on_test_start = on_fit_start

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        part = self.setting.parts[self.setting.evaluated[-1]]
        batch = part.subset(range(min(self.count, len(part)))).batch
        begins = [self._begin(row) for row in batch.targets]
        pretrained = isinstance(module.model.backbone, HuggingFace)
        written = (self._generated if pretrained else self._decoded)(module, batch, begins)
        say = self.setting.data.text
        lines = []
        for tokens, targets, begin, found in zip(_tokens(batch), batch.targets.tolist(), begins, written, strict=True):
            wanted = [token for token in targets[begin:] if token >= 0]
            lines.append({"prompt": say(tokens[: begin + 1]), "written": say(found), "wanted": say(wanted)})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(Path(trainer.default_root_dir) / "samples.jsonl", text)

    def _begin(self, targets: Tensor) -> int:
        """The place of the last token that is given: the next one is the first to be written."""
        counted = (targets >= 0).nonzero().flatten()
        first, last = int(counted[0]), int(counted[-1])
        return first if first else min(self.given - 1, last)

    def _generated(self, module: LightningModule, batch: Batch, begins: list[int]) -> list[list[int]]:
        prompts = [tokens[: begin + 1] for tokens, begin in zip(_tokens(batch), begins, strict=True)]
        options = {"end": self.setting.data.end, "temperature": self.temperature, "seed": self.seed}
        return generate(module.model, prompts, self.tokens, **options)

    def _decoded(self, module: LightningModule, batch: Batch, begins: list[int]) -> list[list[int]]:
        end = -1 if self.setting.data.end is None else self.setting.data.end
        places = torch.arange(batch.targets.shape[1])
        labels = torch.where(places < torch.tensor(begins)[:, None], -100, batch.targets)
        found = greedy_decode(module.model, batch.inputs.to(module.device), labels, end).tolist()
        rows = [row[begin : begin + self.tokens] for row, begin in zip(found, begins, strict=True)]
        return [row[: row.index(end)] if end in row else row for row in rows]


def _tokens(batch: Batch) -> list[list[int]]:
    """Of each sample, with what fills its row."""
    inputs: Any = batch.inputs
    return (inputs if isinstance(inputs, Tensor) else inputs["input_ids"]).tolist()
