"""EfficientNet-Lite0 with the ImageNet weights of its authors, which come as a Python package."""

from torch import Tensor, nn

from fisherexp.config.locations import PACKAGED
from fisherexp.config.types import AtLeastOne, Count, Positive
from fisherexp.models.imported import Imported
from fisherexp.models.preprocessing import Preprocessing
from fisherexp.models.weight_files import file_of_weights, read_weights
from fisherexp.models.weights import load_headless, unwrapped

HEAD = "_fc"
# MEAN_RGB and STDDEV_RGB of the authors' lite/efficientnet_lite_builder.py (tensorflow/tpu); the package says nothing
# of them. Evaluation cuts 224 of 256 pixels; that these networks are of bilinear resizing is timm's note.
TRAINED_WITH = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, 224, 0.875, "bilinear")


class EfficientNetLite0(Imported):
    """EfficientNet-Lite0: EfficientNet-B0 (Tan, Le 2019) with ReLU6 and without squeeze-and-excitation, d = 1280.

    weights: a file of them, whose head is taken where it is for as many classes; or pkg://<distribution>/<path> of an
        installed package; null for new ones.
    own_head: the classifier's head begins as the one that came with the weights; the package's is for the 1000 classes
        of ImageNet.
    Further options, input_shape: see Imported. Padding is TensorFlow's for images of any size.

    Raises ImportError or ValueError, in one line, where a package is not installed, and for weights that do not fit.
    """

    name = "efficientnet_lite0"

    def __init__(
        self,
        weights: str | None = None,
        own_head: bool = False,
        freeze_batch_norm: bool = False,
        frozen: bool = False,
        mean: list[float] | None = None,
        std: AtLeastOne[Positive] | None = None,
        resize: Count | None = None,
        *,
        input_shape: tuple[int, int, int],
    ) -> None:
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise ImportError(
                "model=efficientnet_lite0 needs the package efficientnet-lite-pytorch: pip install 'fisherexp[models]'"
            ) from None

        size = [resize, resize] if resize else list(input_shape[-2:])
        network = EfficientNet.from_name("efficientnet-lite0", image_size=size, num_classes=1)
        network.set_submodule(HEAD, nn.Identity())
        title, preprocessing, own = "efficientnet_lite0", None, None
        if weights is not None:
            file = file_of_weights(weights)
            title, preprocessing = f"efficientnet_lite0 ({file.name})", TRAINED_WITH
            try:
                own = load_headless(network, unwrapped(read_weights(file)), HEAD)
            except ValueError as error:
                raise ValueError(f"model.weights={weights}: {error}") from None
        _plain(network)
        images = {"mean": mean, "std": std, "resize": resize}
        images |= {"freeze_batch_norm": freeze_batch_norm, "frozen": frozen}
        of_user = weights is not None and not weights.startswith(PACKAGED)
        super().__init__(network, title, input_shape, preprocessing, own, own_head, of_user, **images)

    def forward(self, x: Tensor) -> Tensor:
        """Channels lie last in memory: on a processor depthwise convolutions take half the time so. Written without
        torch.channels_last, of which torch.vmap knows nothing."""
        return super().forward(x.movedim(1, -1).contiguous().movedim(-1, 1))


def _plain(network: nn.Module) -> None:
    """Write the package's convolutions, which pad their input themselves, as torch's: curvature and adapters know
    these. Where padding differs from side to side (stride 2), it becomes a layer of its own."""
    found = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    for path, layer in found:
        padding = getattr(layer.static_padding, "padding", (0, 0, 0, 0))
        left, right, top, bottom = padding
        even = left == right and top == bottom
        made = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            tuple(layer.stride),
            (top, left) if even else 0,
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        made.weight = layer.weight
        network.set_submodule(path, made if even else nn.Sequential(nn.ZeroPad2d(padding), made))
