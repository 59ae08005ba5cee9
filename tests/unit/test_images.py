import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from trainer.contract.buckets import Size, crop_to
from trainer.contract.errors import UnreadableImage
from trainer.data.images import load_picture, to_pixels


def save(folder, picture, name="x.png", **options):
    path = folder / name
    picture.save(path, **options)
    return path


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_picture(save(tmp_path, picture, "x.jpg", exif=exif)).size == (10, 20)


def test_transparency_becomes_white(tmp_path):
    loaded = load_picture(save(tmp_path, Image.new("RGBA", (4, 4), (255, 0, 0, 0))))
    assert loaded.mode == "RGB"
    assert loaded.getpixel((0, 0)) == (255, 255, 255)


def test_half_transparency_is_composed(tmp_path):
    loaded = load_picture(save(tmp_path, Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
    assert loaded.getpixel((0, 0)) == pytest.approx((127, 127, 127), abs=1)


def test_a_palette_with_a_transparent_entry_becomes_white_there(tmp_path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    assert load_picture(save(tmp_path, picture, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "value"), [("L", 128), ("CMYK", (0, 0, 0, 127)), ("1", 1)])
def test_every_mode_becomes_rgb(tmp_path, mode, value):
    suffix = "x.jpg" if mode == "CMYK" else "x.png"
    assert load_picture(save(tmp_path, Image.new(mode, (4, 4), value), suffix)).mode == "RGB"


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path):
    picture = Image.fromarray(np.full((4, 4), 32768, np.uint16))
    assert load_picture(save(tmp_path, picture)).getpixel((0, 0)) == (128, 128, 128)


def test_an_embedded_profile_is_converted_to_srgb(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    same = load_picture(save(tmp_path, Image.new("RGB", (4, 4), (10, 200, 30)), icc_profile=lab.tobytes()))
    assert same.getpixel((0, 0)) == pytest.approx((10, 200, 30), abs=1)


def test_a_broken_profile_does_not_lose_the_picture(tmp_path):
    picture = Image.new("RGB", (4, 4), (10, 200, 30))
    assert load_picture(save(tmp_path, picture, icc_profile=b"nonsense")).getpixel((0, 0)) == (10, 200, 30)


def test_a_picture_cut_short_is_an_error_that_names_it(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    path = tmp_path / "halb.jpg"
    path.write_bytes(buffer.getvalue()[:400])
    with pytest.raises(UnreadableImage, match=r"halb\.jpg"):
        load_picture(path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path, Image.new("RGB", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="exceeds limit"):
        load_picture(path)


def test_pixels_are_the_bucket_in_minus_one_to_one():
    picture = Image.new("RGB", (100, 50), (255, 0, 127))
    pixels = to_pixels(picture, crop_to(100, 50, Size(32, 32)))
    assert pixels.shape == (3, 32, 32)
    assert pixels[0].min() == 1
    assert pixels[1].max() == -1


def test_the_crop_is_centred():
    picture = Image.new("RGB", (96, 32), "black")
    picture.paste("white", (32, 0, 64, 32))
    assert to_pixels(picture, crop_to(96, 32, Size(32, 32))).min() > 0.9
