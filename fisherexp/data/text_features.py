"""What a frozen pretrained transformer makes of texts: rows of numbers, for whatever learns on top of it.

The transformer is gone through once; the rows are kept in the store and read by every later run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.content import content
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.remarks import say
from fisherexp.data.tensors import TensorSet
from fisherexp.data.text_classification import TextClassification
from fisherexp.data.token_rows import TokenRows
from fisherexp.models.eval_mode import eval_mode
from fisherexp.models.huggingface import HuggingFace
from fisherexp.models.tokenizer import Tokenizer
from fisherexp.models.transformer_files import whereabouts

TOGETHER = 32  # texts that go through the transformer at a time, of nearly one length


class TextFeatures(LabeledData):
    """texts: the data set, without its tokenizer, which is the transformer's. What its `train_size` leaves out is not
        gone through.
    name, revision, gguf_file, pooling: of the transformer, see HuggingFace.
    Further options: see LabeledData.

    Inputs are float32 (N, d), the pooled features as they are: not standardized. They are kept in the store, named by
    the content of the texts' files and of the transformer's folder, and by the options of both.
    """

    title = "features of texts"
    provides = ("floats", "class_labels")
    problems = ("supervised",)
    paths = ("name",)
    input_dtype = torch.float32

    def __init__(
        self,
        texts: Callable[..., TextClassification],
        name: str,
        revision: str | None = None,
        gguf_file: str | None = None,
        pooling: Literal["mean", "cls"] = "mean",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.network = {"name": name, "revision": revision, "gguf_file": gguf_file}
        self.texts = texts(tokenizer=Tokenizer(**self.network), root=str(self.root))
        self.named = {"texts": [type(self.texts).__name__, texts.keywords], "network": self.network, "pooling": pooling}
        self.pooling = pooling

    @property
    def altered(self) -> bool:
        return super().altered or self.texts.altered

    def read(self) -> tuple[TensorSet, TensorSet]:
        kept, about = self._kept()
        self.class_names, self.num_classes = about["class_names"], len(about["class_names"])
        self.input_shape = (kept["train.inputs"].shape[1],)
        self.remarks = about["remarks"]
        say(self.texts.title, self.remarks)
        return tuple(TensorSet(kept[f"{split}.inputs"], kept[f"{split}.targets"]) for split in ("train", "test"))

    def _kept(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if self.store is None:
            return self._encoded()
        place, options = whereabouts(**self.network)
        parts = {
            "files": {split: self.texts.content(file) for split, file in self.texts.files().items()},
            "weights": content(Path(place)) if options.get("local_files_only") else None,
            "code": self.store.code_of(type(self), type(self.texts)),
        }
        found = self.store.get("features", parts | self.named, lambda scratch: self._encoded())
        return found.tensors, found.about

    def _encoded(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Features and classes of both parts by name, the names of the classes, and what is to be said of the texts."""
        texts = self.texts.load()
        network = HuggingFace(**self.network, pooling=self.pooling, **texts.architecture_options)
        found = {}
        for split, rows in (("train", texts.train), ("test", texts.test)):
            found |= {f"{split}.inputs": features(network, rows), f"{split}.targets": rows.targets}
        return found, {"class_names": texts.class_names, "remarks": texts.remarks}


@torch.no_grad()
def features(network: HuggingFace, rows: TokenRows) -> Tensor:
    """(N, d) of the texts in their order, which go through the network by length, so that little is padded."""
    order = rows.lengths.argsort(stable=True)
    with eval_mode(network):
        batches = rows.subset(order).loader(TOGETHER, shuffle=False)
        found = torch.cat([network(**batch.inputs) for batch in batches])
    return torch.empty_like(found).index_copy_(0, order, found)
