"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, from the files and in the folders that torchvision uses."""

import gzip
import pickle

import numpy as np
import torch

from fisherexp.data.idx import parse_idx
from fisherexp.data.tensors import TensorSet
from fisherexp.data.torchvision_files import TorchvisionSet


class MNIST(TorchvisionSet):
    """60,000 + 10,000 handwritten digits (LeCun et al. 1998)."""

    title = "MNIST"
    num_classes = 10
    input_shape = (1, 28, 28)
    class_names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    mean = [0.1307]
    std = [0.3081]
    mirrors = False
    torchvision_name = "MNIST"
    folder = "MNIST/raw"
    train_files = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    }
    test_files = {
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }

    def read(self) -> tuple[TensorSet, TensorSet]:
        return self._split(self.train_files), self._split(self.test_files)

    def _split(self, files: dict[str, str]) -> TensorSet:
        images, labels = (parse_idx(gzip.decompress(self.content(name)), name) for name in files)
        return TensorSet(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long())


class FashionMNIST(MNIST):
    """60,000 + 10,000 pictures of clothes (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747)."""

    title = "Fashion-MNIST"
    class_names = [
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ]
    mean = [0.2860]
    std = [0.3530]
    mirrors = True
    torchvision_name = "FashionMNIST"
    folder = "FashionMNIST/raw"
    train_files = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    }
    test_files = {
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }


class CIFAR10(TorchvisionSet):
    """50,000 + 10,000 color photographs (Krizhevsky 2009)."""

    title = "CIFAR-10"
    num_classes = 10
    input_shape = (3, 32, 32)
    class_names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    mean = [0.4914, 0.4822, 0.4465]
    std = [0.2470, 0.2435, 0.2616]
    torchvision_name = "CIFAR10"
    folder = "cifar-10-batches-py"
    archive = "cifar-10-python.tar.gz"
    published_corruptions = "CIFAR-10-C"
    train_files = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    }
    test_files = {"test_batch": "40351d587109b95175f43aff81a1287e"}
    label_key = "labels"

    def read(self) -> tuple[TensorSet, TensorSet]:
        return self._split(self.train_files), self._split(self.test_files)

    def _split(self, files: dict[str, str]) -> TensorSet:
        # Unpickling is safe here because `content` has compared the file with its published checksum.
        batches = [pickle.loads(self.content(name), encoding="latin1") for name in files]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([batch[self.label_key] for batch in batches])
        return TensorSet(torch.from_numpy(images), torch.from_numpy(labels).long())


class CIFAR100(CIFAR10):
    """50,000 + 10,000 color photographs of 100 kinds of things (Krizhevsky 2009), fine labels."""

    title = "CIFAR-100"
    num_classes = 100
    class_names = [
        "apple",
        "aquarium_fish",
        "baby",
        "bear",
        "beaver",
        "bed",
        "bee",
        "beetle",
        "bicycle",
        "bottle",
        "bowl",
        "boy",
        "bridge",
        "bus",
        "butterfly",
        "camel",
        "can",
        "castle",
        "caterpillar",
        "cattle",
        "chair",
        "chimpanzee",
        "clock",
        "cloud",
        "cockroach",
        "couch",
        "crab",
        "crocodile",
        "cup",
        "dinosaur",
        "dolphin",
        "elephant",
        "flatfish",
        "forest",
        "fox",
        "girl",
        "hamster",
        "house",
        "kangaroo",
        "keyboard",
        "lamp",
        "lawn_mower",
        "leopard",
        "lion",
        "lizard",
        "lobster",
        "man",
        "maple_tree",
        "motorcycle",
        "mountain",
        "mouse",
        "mushroom",
        "oak_tree",
        "orange",
        "orchid",
        "otter",
        "palm_tree",
        "pear",
        "pickup_truck",
        "pine_tree",
        "plain",
        "plate",
        "poppy",
        "porcupine",
        "possum",
        "rabbit",
        "raccoon",
        "ray",
        "road",
        "rocket",
        "rose",
        "sea",
        "seal",
        "shark",
        "shrew",
        "skunk",
        "skyscraper",
        "snail",
        "snake",
        "spider",
        "squirrel",
        "streetcar",
        "sunflower",
        "sweet_pepper",
        "table",
        "tank",
        "telephone",
        "television",
        "tiger",
        "tractor",
        "train",
        "trout",
        "tulip",
        "turtle",
        "wardrobe",
        "whale",
        "willow_tree",
        "wolf",
        "woman",
        "worm",
    ]
    mean = [0.5071, 0.4865, 0.4409]
    std = [0.2673, 0.2564, 0.2762]
    torchvision_name = "CIFAR100"
    folder = "cifar-100-python"
    archive = "cifar-100-python.tar.gz"
    published_corruptions = "CIFAR-100-C"
    train_files = {"train": "16019d7e3df5f24257cddd939b257f8d"}
    test_files = {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
    label_key = "fine_labels"


class CIFAR20(CIFAR100):
    """The images of CIFAR-100 in their 20 super-classes of five classes each."""

    title = "CIFAR-20"
    num_classes = 20

    def read(self) -> tuple[TensorSet, TensorSet]:
        """Fine labels; which belong together is in the file."""
        content = pickle.loads(self.content(next(iter(self.train_files))), encoding="latin1")
        pairs = sorted(set(zip(content["coarse_labels"], content["fine_labels"], strict=True)))
        self.num_classes = CIFAR100.num_classes  # until the classes are merged
        self.superclasses = [[fine for coarse, fine in pairs if coarse == c] for c in range(CIFAR20.num_classes)]
        return super().read()
