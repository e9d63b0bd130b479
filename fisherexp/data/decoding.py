"""One image file, whatever it holds, as eight bits of red, green and blue."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fisherexp.data.errors import DataError, reason_of

ORIENTATION = 0x0112  # EXIF's tag, and what undoes each of its values
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNS_ITSELF = "TIFF"  # the format whose files Pillow turns as it reads them
DEEP = ("I", "F")  # Pillow's modes of one channel with more than 8 bits begin so: I, I;16, I;16B, F
PLAIN = ("1", "L", "P", "RGB")  # modes that become RGB without a loss
FULL = 65535  # white in 16 bits


@dataclass(frozen=True)
class Decoding:
    """What is open in decoding.

    intensity_range: (low, high) of images of one channel with more than 8 bits, which become 0 and 255. By default
        (0, 65535) of whole numbers and (0, 1) of floats; an image for which this is unlikely is refused.
    exif_orientation: cameras store images as the sensor lay and note how to turn them; turn them. (TIFF always is.)
    """

    intensity_range: tuple[float, float] | None = None
    exif_orientation: bool = True


USUAL = Decoding()


def decode(path: Path, size: int, decoding: Decoding = USUAL) -> Tensor:
    """An image file as uint8 (3, size, size): centered square part, resized with bilinear filtering.

    Of several frames the first; transparent parts over white. Raises DataError naming the file if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            turn = _turn(image) if decoding.exif_orientation and image.format != TURNS_ITSELF else None
            color = _color(image, decoding.intensity_range)
            upright = color if turn is None else color.transpose(turn)
            fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    except Exception as error:  # decoders let through whatever a damaged file makes them stumble over
        raise _undecodable(path, error) from None
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).contiguous()


def conversions(path: Path, decoding: Decoding = USUAL) -> list[str]:
    """What `decode` does to a file beyond cutting and resizing, in a few words each. Only its header is read.

    Raises DataError as `decode` does.
    """
    try:
        with Image.open(path) as image:
            deep, alpha = image.mode.startswith(DEEP), _has_alpha(image)
            found = {
                "turned as EXIF says": _turn(image) is not None
                and (decoding.exif_orientation or image.format == TURNS_ITSELF),
                "more than 8 bits to 8": deep or _has_deep_channels(image),
                "transparent parts over white": alpha,
                f"{image.mode} to RGB": image.mode not in PLAIN and not deep and not alpha,
                "only the first frame": getattr(image, "is_animated", False),
            }
    except Exception as error:  # as above
        raise _undecodable(path, error) from None
    return [words for words, applies in found.items() if applies]


def _undecodable(path: Path, error: Exception) -> DataError:
    if path.is_symlink() and not path.exists():
        reason = f"it is a link to {path.readlink()}, which is not there"
    elif isinstance(error, UnidentifiedImageError):
        reason = "no image format is recognized"
    else:
        reason = reason_of(error)
    return DataError(f"{path} cannot be decoded: {reason}")


def _turn(image: Image.Image) -> Image.Transpose | None:
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode the pixels to look behind them
        return None
    return TURNS.get(image.getexif().get(ORIENTATION))


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "PA", "RGBA") or ("transparency" in image.info and not image.mode.startswith(DEEP))


def _has_deep_channels(image: Image.Image) -> bool:
    """Has an image that is not yet decoded several channels of 16 bits? Pillow keeps the upper 8 of each."""
    return not image.mode.startswith(DEEP) and any(";16" in str(tile[3]) for tile in image.tile)


def _color(image: Image.Image, intensity_range: tuple[float, float] | None) -> Image.Image:
    """RGB of the same size. Raises DataError for intensities whose scale is not known."""
    if image.mode.startswith(DEEP):
        return Image.fromarray(_eight_bits(np.asarray(image), intensity_range)).convert("RGB")
    if _has_deep_channels(image):
        highest = max(max(image.getchannel(band).getextrema()) for band in image.getbands() if band != "A")
        if intensity_range not in (None, (0, FULL)) or (intensity_range is None and 0 < highest < 128):
            known = f"[0, {FULL}], and its brightest value is {256 * highest + 255} at most"
            raise DataError(f"has several channels of 16 bits, read as {known}; save it with 8 bits a channel")
    if not _has_alpha(image):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _eight_bits(values: np.ndarray, intensity_range: tuple[float, float] | None) -> np.ndarray:
    """Intensities (H, W) as uint8."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise DataError("has intensities that are no finite numbers")
    if intensity_range is None:
        whole = np.issubdtype(values.dtype, np.integer)
        black, white = 0, FULL if whole else 1
        # Nothing in a file tells 12 bits of 16 from a dark image: where the upper half is empty, it must be said.
        if low < black or high > white or 0 < high <= white / 2:
            kind = "whole numbers of more than 8 bits" if whole else "floats"
            likely = f"[{min(low, 0):g}, {_likely_white(high) if whole else high:g}]"
            remedy = f"set data.intensity_range to what is black and white, e.g. {likely}"
            raise DataError(f"has intensities from {low:g} to {high:g} in {kind}; {remedy}")
    else:
        black, white = intensity_range
    return np.rint(((values.astype(np.float64) - black) / (white - black)).clip(0, 1) * 255).astype(np.uint8)


def _likely_white(high: float) -> int:
    """The highest value of the fewest bits that hold `high`, of 8, 10, 12, 14, 16 and 31."""
    return next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits), 2**31 - 1)
