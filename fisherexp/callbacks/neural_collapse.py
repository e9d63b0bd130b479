"""Neural collapse beside a training run: what last-layer features of training images and their mixtures do.

After chosen epochs the model is shown, unaugmented and in eval mode,

clean        training images: the metrics of fisherexp.metrics.neural_collapse, and the accuracy
same_class   mixtures λ x_i + (1-λ) x_j with y_i = y_j and λ uniform: the same metrics
channels     mixtures of two classes at a few fixed λ: the table of fisherexp.metrics.channels

and mixtures for the picture of three classes of "Pushing Boundaries" (Fisher, Meng, Papyan, ICLR 2024, arXiv
2402.06171). The images, partners and λ are the same in every epoch, so that the animation follows points.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning import LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor, nn

from fisherexp.callbacks.collapse_figures import draw
from fisherexp.callbacks.collapse_tables import write_tables
from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.types import AtLeastOne, ClassLabel, Count, Size
from fisherexp.curvature.undisturbed import Undisturbed
from fisherexp.data.loader import Loader
from fisherexp.files import write_atomically
from fisherexp.methods.mixup.mixing import mix, same_class_partners
from fisherexp.metrics.channels import LAMBDAS, channel_row, unit_rows
from fisherexp.metrics.class_plane import coordinates
from fisherexp.metrics.neural_collapse import ClassMoments, collapse, disagreements
from fisherexp.metrics.over_batches import gathered
from fisherexp.models.stages import changed_after
from fisherexp.seeds import generator


class NeuralCollapse(Watcher):
    """Leaves neural_collapse.csv, channels.csv, the raw numbers (neural_collapse.safetensors) and figures.

    epochs: after which to look, counted from 1; the last epoch is always looked at.
    samples: number of training images for the metrics, all by default.
    pairs: number of pairs of images in each row of the channel table.
    classes: the three of the picture. points: number of mixtures in each of its two halves.
    layer: where images are mixed: 0 at the input, k after the network's k-th stage (see models/stages.py).
    bn_mode: of BatchNorm for the picture. 'train': statistics of the shown mixtures themselves, as published.
    batch_size: of the looks. seed: of the choice of images, partners and λ.

    Raises ValueError for a data set of fewer than three classes, or a method whose batches are not shuffled.
    """

    requires = ("floats",)  # inputs that can be mixed
    watches_fit = True

    def __init__(
        self,
        epochs: AtLeastOne[Count],
        samples: Count | None = None,
        pairs: Count = 1000,
        classes: AtLeastOne[ClassLabel] | None = None,
        points: Count = 1000,
        layer: Size = 0,
        bn_mode: Literal["train", "eval"] = "train",
        batch_size: Count = 500,
        seed: Size = 0,
    ) -> None:
        self.epochs, self.samples, self.pairs, self.points = set(epochs), samples, pairs, points
        self.classes, self.layer, self.bn_mode = classes or [0, 1, 2], layer, bn_mode
        self.batch_size, self.seed = batch_size, seed
        self.seen: dict[str, list[Tensor]] = {}

    # --- Lightning ---------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        known = module.model.head.out_features
        if len(set(self.classes)) != 3 or max(self.classes) >= known:
            raise ValueError(f"neural_collapse.classes={self.classes}: three different ones below {known} are needed")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: object) -> None:
        # Before the epoch's end, where the training state is saved: a resumed run has every look.
        epoch = trainer.current_epoch + 1
        if not (trainer.is_last_batch and (epoch in self.epochs or epoch == trainer.max_epochs)):
            return
        if trainer.is_global_zero:
            look = Look(self, module, trainer.train_dataloader).everything()
            classes = torch.tensor(module.model.head.out_features)
            for name, tensor in {"epochs": torch.tensor(epoch), "classes": classes, **look}.items():
                self.seen.setdefault(name, []).append(tensor.cpu())

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero and self.seen:
            folder, seen = Path(trainer.default_root_dir), self.state_dict()
            write_atomically(folder / "neural_collapse.safetensors", lambda temporary: save_file(seen, temporary))
            write_tables(seen, folder)
            draw(seen, folder)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything seen so far, by name; the first dimension is that of the epochs looked at."""
        return {name: torch.stack(tensors) for name, tensors in self.seen.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.seen = {name: list(tensor) for name, tensor in state.items()}


class Look:
    """One look at a model. options: the callback; loader: the training loader, of which only the images are used."""

    def __init__(self, options: NeuralCollapse, module: LightningModule, loader: Loader) -> None:
        if not (isinstance(loader, Loader) and loader.shuffle):
            raise ValueError("callbacks=neural_collapse needs a method that goes through one shuffled training set")
        self.options, self.model, self.loader = options, module.model, loader
        self.raw_outputs = module.raw_outputs
        everything = torch.arange(loader.size) if loader.indices is None else loader.indices
        order = torch.randperm(len(everything), generator=self._random("samples"))
        self.chosen = everything[order[: options.samples].sort().values]

    @torch.no_grad()
    def everything(self) -> dict[str, Tensor]:
        """Named tensors: metrics (scalars), the channel table, the points of the picture."""
        with _eval(self.model, batch_statistics=False):
            labels, found, center = self._clean()
            found |= self._same_class(labels)
            found["channels"] = self._channels(labels, center)
            found["raw_outputs"] = torch.tensor(self.raw_outputs)
        with _eval(self.model, batch_statistics=self.options.bn_mode == "train"):
            return found | self._points(labels, center)

    def _clean(self) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        parts = self.loader.fetch(self.chosen.split(self.options.batch_size))
        features, labels = gathered(self.model.features, parts)
        found, center = self._collapse("clean", features, labels)
        hits = (self.model.head(features).argmax(1) == labels).double().mean()
        return labels, found | {"clean/accuracy": 100 * hits}, center

    def _same_class(self, labels: Tensor) -> dict[str, Tensor]:
        partners = same_class_partners(labels.cpu(), self._random("same class"))
        lam = torch.rand(len(labels), generator=self._random("lambda"))
        return self._collapse("same_class", self._mixed(self.chosen, self.chosen[partners], lam), labels)[0]

    def _collapse(self, name: str, features: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        head = self.model.head
        moments = ClassMoments(head.out_features, head.in_features, features.device)
        moments.update(features, labels)
        found = collapse(moments, head.weight, head.bias)
        found["nc4"] = disagreements(features, moments.means, head.weight, head.bias).double().mean().item()
        values = {f"{name}/{metric}": torch.tensor(value, dtype=torch.float64) for metric, value in found.items()}
        return values, moments.means.mean(0)

    def _channels(self, labels: Tensor, center: Tensor) -> Tensor:
        labels = labels.cpu()
        first, second = self._different(labels, torch.arange(len(labels)), self.options.pairs)
        pairs = torch.stack([labels[first], labels[second]], 1).to(center.device)
        rows = []
        for lam in LAMBDAS:
            features = self._mixed(self.chosen[first], self.chosen[second], torch.full((len(first),), lam))
            outputs = self.model.head(features)
            probabilities = outputs if self.raw_outputs else outputs.softmax(1)
            rows.append(channel_row(features, probabilities, pairs, self.model.head.weight, center))
        return torch.stack(rows)

    def _points(self, labels: Tensor, center: Tensor) -> dict[str, Tensor]:
        labels, count = labels.cpu(), self.options.points
        classes = torch.tensor(self.options.classes)
        among = torch.nonzero(torch.isin(labels, classes)).flatten()
        weight = self.model.head.weight.double()
        rows, directions = (w[classes.to(w.device)] for w in (weight, unit_rows(weight)))
        found = {"picture/rows": coordinates(rows, rows), "picture/classes": classes}
        found["picture/center"] = coordinates(center[None], rows)[0]
        found["picture/directions"] = coordinates(directions + center, rows) - found["picture/center"]
        same = among[torch.randint(len(among), (count,), generator=self._random("picture"))]
        partners = torch.empty_like(same)
        for label in classes:
            members, mine = torch.nonzero(labels == label).flatten(), labels[same] == label
            drawn = torch.randint(len(members), (int(mine.sum()),), generator=self._random("partner", int(label)))
            partners[mine] = members[drawn]
        lam = torch.rand(count, generator=self._random("picture lambda"))
        different = self._different(labels, among, count)
        for name, (first, second) in {"same": (same, partners), "different": different}.items():
            features = self._mixed(self.chosen[first], self.chosen[second], lam[: len(first)])
            found[f"picture/{name}"] = coordinates(features.double(), rows)
        pairs = torch.stack([labels[different[0]], labels[different[1]]], 1)
        return found | {"picture/lambda": lam, "picture/same_class": labels[same], "picture/pairs": pairs}

    def _different(self, labels: Tensor, among: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """`count` random pairs of positions out of `among` that differ in their label."""
        random, first = self._random("different"), among[:0]
        second = first
        while len(first) < count:
            one, other = (among[torch.randint(len(among), (2 * count,), generator=random)] for _ in range(2))
            differ = labels[one] != labels[other]
            first, second = torch.cat([first, one[differ]]), torch.cat([second, other[differ]])
        return first[:count], second[:count]

    def _mixed(self, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
        """Features (n, d) of mixtures of the images at `first` and `second`, indices (n,) into the loader's set."""
        found, size = [], self.options.batch_size
        batches = [part for pair in zip(first.split(size), second.split(size), strict=True) for part in pair]
        images = (batch.inputs for batch in self.loader.fetch(batches))
        for one, other, weights in zip(images, images, lam.split(size), strict=True):
            count, weights = len(one), weights.to(one.device)
            change = lambda h, n=count, w=weights: mix(h[:n], h[n:], w)  # noqa: E731
            with changed_after(self.model, self.options.layer, change):
                found.append(self.model.features(torch.cat([one, other])))
        return torch.cat(found)

    def _random(self, *what: str | int) -> torch.Generator:
        return generator("neural_collapse", self.options.seed, *what)


@contextmanager
def _eval(model: nn.Module, batch_statistics: bool) -> Iterator[None]:
    """Eval mode, BatchNorm on request with the statistics of each batch; modes and buffers are put back after it."""
    with Undisturbed(model), torch.no_grad():
        for module in model.modules():
            if batch_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = True
        try:
            yield
        finally:
            model.eval()
