"""One file at a time: whatever an image file holds, it looks as it should, or one line says why not."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fisherexp.data.decoding import TURNS, Decoding, conversions, decode
from fisherexp.data.errors import DataError

SIDE = 32
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
COLORS = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 3), np.uint8)


def read(path, **options) -> np.ndarray:
    """(H, W, 3), as the file is: nothing is cut or resized at this size."""
    return decode(path, SIDE, Decoding(**options)).permute(1, 2, 0).numpy()


def levels(bits: int, kind=np.uint16) -> np.ndarray:
    return np.rint(RAMP * (2**bits - 1)).astype(kind)


DEEP = {
    "16-bit png": (levels(16), "a.png", None),
    "16-bit tiff": (levels(16), "a.tif", None),
    "16-bit pgm": (levels(16), "a.pgm", None),
    "32-bit tiff with 16 bits": (levels(16, np.int32), "a.tif", None),
    "float tiff": (RAMP.astype(np.float32), "a.tif", None),
    "12 bits in 16": (levels(12), "a.png", (0, 4095)),
    "14 bits in 16": (levels(14), "a.tif", (0, 16383)),
    "32 bits": (levels(31, np.float64).astype(np.int32), "a.tif", (0, 2**31 - 1)),
    "Hounsfield units": ((RAMP * 4000 - 1000).astype(np.float32), "a.tif", (-1000, 3000)),
    "floats to 255": ((RAMP * 255).astype(np.float32), "a.tif", (0, 255)),
}


@pytest.mark.parametrize(("array", "name", "known"), DEEP.values(), ids=DEEP)
def test_a_ramp_stays_a_ramp(array, name, known, tmp_path):
    Image.fromarray(array).save(tmp_path / name)
    found = read(tmp_path / name, intensity_range=known).astype(int)
    assert np.abs(found - 255 * RAMP[..., None]).max() <= 1
    assert conversions(tmp_path / name) == ["more than 8 bits to 8"]


UNKNOWN = {
    "12 bits in 16": (levels(12), "a.png", r"from 0 to 4095 in whole numbers.*e\.g\. \[0, 4095\]$"),
    "10 bits in 16": (levels(10), "a.tif", r"from 0 to 1023 .*e\.g\. \[0, 1023\]$"),
    "14 bits in 16": (levels(14), "a.png", r"from 0 to 16383 .*e\.g\. \[0, 16383\]$"),
    "8 bits in 32": (levels(8, np.int32), "a.tif", r"from 0 to 255 .*e\.g\. \[0, 255\]$"),
    "20 bits": (levels(20, np.int32), "a.tif", r"in whole numbers of more than 8 bits; set data\.intensity_range"),
    "negative": (levels(16, np.int32) - 1000, "a.tif", r"from -1000 to 64535 .*e\.g\. \[-1000, 65535\]$"),
    "floats to 255": ((RAMP * 255).astype(np.float32), "a.tif", r"from 0 to 255 in floats; .*e\.g\. \[0, 255\]$"),
    "dark floats": ((RAMP / 20).astype(np.float32), "a.tif", r"from 0 to 0\.05 in floats"),
    "no numbers": (np.full((SIDE, SIDE), np.nan, np.float32), "a.tif", "no finite numbers"),
    "infinite": (np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32), "a.tif", "no finite numbers"),
}


@pytest.mark.parametrize(("array", "name", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_intensities_of_no_known_scale_are_one_line(array, name, message, tmp_path):
    Image.fromarray(array).save(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name} has ")
    assert "\n" not in str(caught.value)


def test_a_black_image_is_black_in_any_depth(tmp_path):
    for kind in (np.uint16, np.int32, np.float32):
        Image.fromarray(np.zeros((SIDE, SIDE), kind)).save(tmp_path / "a.tif")
        assert not read(tmp_path / "a.tif").any()


def write_deep_color(path, bits):
    """A PNG of three channels of 16 bits, which Pillow does not write."""
    rows = np.repeat(levels(bits)[..., None], 3, 2).astype(">u2")
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(body)),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_color_of_sixteen_bits(tmp_path):
    write_deep_color(tmp_path / "a.png", 16)
    assert np.abs(read(tmp_path / "a.png").astype(int) - 255 * RAMP[..., None]).max() <= 1
    assert conversions(tmp_path / "a.png") == ["more than 8 bits to 8"]
    write_deep_color(tmp_path / "b.png", 12)
    with pytest.raises(DataError, match=r"b\.png has several channels of 16 bits, .*save it with 8 bits a channel$"):
        read(tmp_path / "b.png")
    with pytest.raises(DataError, match="several channels of 16 bits"):
        read(tmp_path / "a.png", intensity_range=(0, 4095))


# How an image with each orientation is to be turned, by EXIF's definition: where its first row and column belong.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_stand_upright(orientation, suffix, tmp_path):
    stored, exif, path = np.zeros((SIDE, SIDE, 3), np.uint8), Image.Exif(), tmp_path / f"a.{suffix}"
    stored[..., 0] = 8 * np.arange(SIDE)
    stored[..., 1] = 4 * np.arange(SIDE)[:, None]
    exif[0x0112] = orientation
    Image.fromarray(stored).save(
        path, exif=exif, **{"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    )
    upright, loss = UPRIGHT[orientation](stored).astype(int), 5 if suffix == "jpg" else 0
    assert np.abs(read(path) - upright).max() <= loss
    turned = ["turned as EXIF says"] if orientation > 1 else []
    assert conversions(path) == turned
    off = Decoding(exif_orientation=False)
    as_stored = suffix != "tif"  # which Pillow turns in any case
    assert np.abs(read(path, exif_orientation=False) - (stored if as_stored else upright).astype(int)).max() <= loss
    assert conversions(path, off) == ([] if as_stored else turned)


def test_a_deep_image_is_turned_as_well(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(levels(16)).save(tmp_path / "a.png", exif=exif)
    assert np.abs(read(tmp_path / "a.png")[..., 0].astype(int) - np.rot90(255 * RAMP, -1)).max() <= 1
    assert len(TURNS) == 7


def over_white(colors, alpha) -> np.ndarray:
    return np.rint(colors * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255))


ALPHA = np.repeat(np.repeat(np.array([[0, 85], [170, 255]], np.uint8), SIDE // 2, 0), SIDE // 2, 1)


def test_transparent_parts_lie_over_white(tmp_path):
    """Hidden under them is any color, mostly black."""
    rgba, path = np.dstack([COLORS, ALPHA]), tmp_path / "a.png"
    Image.fromarray(rgba).save(path)
    assert np.abs(read(path) - over_white(COLORS, ALPHA)).max() <= 1
    Image.fromarray(np.dstack([COLORS[..., 0], ALPHA])).save(path)  # LA
    gray = np.repeat(COLORS[..., :1], 3, 2)
    assert np.abs(read(path) - over_white(gray, ALPHA)).max() <= 1
    assert conversions(path) == ["transparent parts over white"]


def test_palettes(tmp_path):
    places, path = (COLORS[..., 0] // 64).astype(np.uint8), tmp_path / "a.png"
    palette = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    image = Image.fromarray(places, "P")
    image.putpalette(palette.tobytes())
    image.save(path)
    assert np.array_equal(read(path), palette[places])
    assert conversions(path) == []
    image.save(path, transparency=bytes([0, 255, 255, 255]))  # the first color is transparent
    palette[0] = 255
    assert np.array_equal(read(path), palette[places])
    assert conversions(path) == ["transparent parts over white"]
    image.save(tmp_path / "a.gif", transparency=0)
    assert np.array_equal(read(tmp_path / "a.gif"), palette[places])


def test_other_kinds_of_color(tmp_path):
    bits = RAMP > 0.5
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(read(tmp_path / "bits.png"), np.repeat(255 * bits[..., None], 3, 2))
    assert conversions(tmp_path / "bits.png") == []
    flat = np.full((SIDE, SIDE, 3), (250, 120, 20), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read(tmp_path / "cmyk.jpg").astype(int) - flat).max() <= 3
    assert conversions(tmp_path / "cmyk.jpg") == ["CMYK to RGB"]
    Image.fromarray(flat).convert("YCbCr").save(tmp_path / "ycc.tif")
    assert np.abs(read(tmp_path / "ycc.tif").astype(int) - flat).max() <= 3
    assert conversions(tmp_path / "ycc.tif") == ["YCbCr to RGB"]


def test_of_several_frames_the_first(tmp_path):
    frames = [Image.new("L", (SIDE, SIDE), color) for color in (100, 200)]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (read(tmp_path / name) == 100).all()
        assert conversions(tmp_path / name) == ["only the first frame"]


def test_damaged_files_are_one_line(tmp_path, monkeypatch):
    Image.fromarray(COLORS).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    for number, content in enumerate((b"", whole[:20], whole[:60], whole[:-30], whole[:50] + b"\0" * 40 + whole[90:])):
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^{path} cannot be decoded: \S[^\n]*$"):
            read(path)
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(
        DataError, match=r"link\.png cannot be decoded: it is a link to .*gone\.png, which is not there$"
    ):
        read(tmp_path / "link.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # an image of 180 million pixels is one of these
    with pytest.raises(DataError, match=r"whole\.png cannot be decoded: Image size \(1024 pixels\) exceeds limit"):
        read(tmp_path / "whole.png")


def test_a_plain_file_is_untouched(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    Image.fromarray(COLORS).save(tmp_path / "a.jfif", "JPEG", quality=100)
    assert torch.equal(decode(tmp_path / "a.png", SIDE), torch.from_numpy(COLORS).permute(2, 0, 1))
    assert conversions(tmp_path / "a.png") == conversions(tmp_path / "a.jfif") == []
