import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from trainer.captioning.from_metadata import prompt_of
from trainer.dataset.buckets import Size, crop_to
from trainer.dataset.errors import UnreadableImage
from trainer.dataset.images import LAB, SRGB, cut, load_image, read_image
from trainer.engine.data.encoding import normalised, to_pixels


def save(folder, image, name="x.png", **options):
    path = folder / name
    image.save(path, **options)
    return path


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(save(tmp_path, image, "x.jpg", exif=exif)).size == (10, 20)


def test_transparency_becomes_white(tmp_path):
    loaded = load_image(save(tmp_path, Image.new("RGBA", (4, 4), (255, 0, 0, 0))))
    assert loaded.mode == "RGB"
    assert loaded.getpixel((0, 0)) == (255, 255, 255)


def test_half_transparency_is_composed(tmp_path):
    loaded = load_image(save(tmp_path, Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
    assert loaded.getpixel((0, 0)) == pytest.approx((127, 127, 127), abs=1)


def test_a_palette_with_a_transparent_entry_becomes_white_there(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert load_image(save(tmp_path, image, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "value"), [("L", 128), ("CMYK", (0, 0, 0, 127)), ("1", 1)])
def test_every_mode_becomes_rgb(tmp_path, mode, value):
    suffix = "x.jpg" if mode == "CMYK" else "x.png"
    assert load_image(save(tmp_path, Image.new(mode, (4, 4), value), suffix)).mode == "RGB"


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path):
    image = Image.fromarray(np.full((4, 4), 32768, np.uint16))
    assert load_image(save(tmp_path, image)).getpixel((0, 0)) == (128, 128, 128)


def test_an_embedded_profile_is_converted_to_srgb(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    same = load_image(save(tmp_path, Image.new("RGB", (4, 4), (10, 200, 30)), icc_profile=lab.tobytes()))
    assert same.getpixel((0, 0)) == pytest.approx((10, 200, 30), abs=1)


def test_a_broken_profile_does_not_lose_the_image(tmp_path):
    image = Image.new("RGB", (4, 4), (10, 200, 30))
    assert load_image(save(tmp_path, image, icc_profile=b"nonsense")).getpixel((0, 0)) == (10, 200, 30)


def test_an_image_cut_short_is_an_error_that_names_it(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    path = tmp_path / "halb.jpg"
    path.write_bytes(buffer.getvalue()[:400])
    with pytest.raises(UnreadableImage, match=r"halb\.jpg"):
        load_image(path)


@pytest.mark.parametrize(
    ("content", "cause"), [(b"<html>403</html>", "unsupported format"), (b"", "empty file"), (None, "Is a directory")]
)
def test_why_a_file_is_no_image_is_said_in_words_without_its_path(tmp_path, content, cause):
    file = tmp_path / "a.png"
    file.mkdir() if content is None else file.write_bytes(content)
    for read in (read_image, prompt_of):
        with pytest.raises(UnreadableImage) as refused:
            read(file)
        assert refused.value.cause == cause
    if content is not None:
        with pytest.raises(UnreadableImage) as refused:
            read_image(file, content)
        assert refused.value.cause == cause


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path, Image.new("RGB", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="exceeds limit"):
        load_image(path)


def test_pixels_are_the_bucket_in_minus_one_to_one():
    image = Image.new("RGB", (100, 50), (255, 0, 127))
    pixels = normalised(to_pixels(image, crop_to(100, 50, Size(32, 32))))
    assert pixels.shape == (3, 32, 32)
    assert pixels[0].min() == 1
    assert pixels[1].max() == -1


def test_the_crop_is_centred():
    image = Image.new("RGB", (96, 32), "black")
    image.paste("white", (32, 0, 64, 32))
    assert to_pixels(image, crop_to(96, 32, Size(32, 32))).min() > 240
    mirrored = to_pixels(image, crop_to(96, 32, Size(32, 32)), mirrored=True)
    assert torch.equal(mirrored, to_pixels(image, crop_to(96, 32, Size(32, 32))).flip(2))


def png16(kind, *numbers):
    """A 16-bit PNG of one color; Pillow writes none but greys."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(f">{len(numbers)}H", *numbers) * 4
    head = struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(row * 4)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize(
    ("kind", "numbers", "color", "alpha"),
    [
        (2, (65535, 32768, 256), (255, 128, 1), None),
        (6, (65535, 32768, 256, 32768), (255, 128, 1), 128),
        (4, (32768, 16384), (128, 128, 128), 64),
    ],
)
def test_sixteen_bit_colors_and_opacity_are_scaled(tmp_path, kind, numbers, color, alpha):
    image = read_image(tmp_path / "x.png", png16(kind, *numbers))
    assert image.color.getpixel((0, 0)) == color
    assert (image.alpha and image.alpha.getpixel((0, 0))) == alpha


@pytest.mark.parametrize("name", ["x.gif", "x.tiff", "x.avif", "x.webp", "x.bmp", "x.jpg", "x.png"])
def test_every_format_becomes_the_same_rgb(tmp_path, name):
    loaded = load_image(save(tmp_path, Image.new("RGB", (16, 16), (200, 100, 50)), name))
    assert loaded.getpixel((8, 8)) == pytest.approx((200, 100, 50), abs=3)


def test_of_a_moving_image_the_first_frame_is_shown(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    path = save(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert load_image(path).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("mode", "value", "seen"), [("F", 0.5, 127), ("F", 100.0, 100), ("I", 200, 200), ("I", 51200, 200)]
)
def test_greys_of_32_bits_are_scaled_to_what_they_span(tmp_path, mode, value, seen):
    assert load_image(save(tmp_path, Image.new(mode, (4, 4), value), "x.tiff")).getpixel((0, 0)) == (seen,) * 3


def test_lab_colors_are_converted(tmp_path):
    image = ImageCms.profileToProfile(Image.new("RGB", (4, 4), (200, 100, 50)), SRGB, LAB, outputMode="LAB")
    assert load_image(save(tmp_path, image, "x.tiff")).getpixel((0, 0)) == pytest.approx((200, 100, 50), abs=3)


def test_transparency_is_laid_on_the_color_that_was_chosen(tmp_path):
    path = save(tmp_path, Image.new("LA", (4, 4), (0, 0)))
    assert load_image(path, "#102030").getpixel((0, 0)) == (16, 32, 48)


def test_a_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same(tmp_path):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    large = small.resize((1600, 1200), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path, large, "x.jpg", quality=95, exif=exif)
    crop = crop_to(1200, 1600, Size(64, 64))
    less, whole = read_image(path, covering=crop.scaled).color, load_image(path)
    assert (less.size, whole.size) == ((150, 200), (1200, 1600))
    shown = [np.asarray(cut(image, crop), float) for image in (less, whole)]
    assert np.abs(shown[0] - shown[1]).mean() < 1


@pytest.mark.filterwarnings("ignore")  # Pillow's about what is broken
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_whatever_bytes_are_flipped_or_missing_an_image_is_read_or_named(tmp_path, kind):
    rng, buffer = random.Random(kind), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "AVIF") else {}
    Image.effect_noise((40, 30), 90).convert("RGB").save(buffer, kind, **options)
    for _ in range(60):
        content = bytearray(buffer.getvalue())
        for _ in range(rng.choice((1, 5, 40))):
            content[rng.randrange(rng.choice((60, len(content))))] = rng.randrange(256)
        content = content[: rng.choice((len(content), rng.randrange(len(content))))]
        try:
            read_image(tmp_path / "x", bytes(content), Size(16, 12))
        except UnreadableImage as error:
            assert error.cause
