"""A folder of varied images made from a seed: clean ones, and ones with a known defect each."""

import math
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

ROOT = Path(__file__).parents[1]
DEMO = sorted((ROOT / "assets" / "demo").rglob("*.png"))
POCKET = ROOT / "assets" / "pocket" / "sheet.png"  # ten by four emoji of 64 px
MARKS = ("© J. Miller 2023", "www.stockpix.example", "stockpix", "Photo: Ana Kern", "@lena.draws", "SAMPLE IMAGE")
MARKS += ("artfolio.example/kim", "ID 1234567890", "ana kern 21", "preview only - do not copy")
SIGNS = ("OPEN", "CAFE ROMA", "EXIT", "BOOKS & MAPS", "No parking", "Main Street 12")
NOUNS = ("fox", "boat", "tower", "tree", "lamp", "horse", "bridge", "garden", "kettle", "mill", "owl", "river", "bench")
MANNERS = ("red", "small", "old", "bright", "wet", "quiet", "tall", "broken", "golden", "striped")
PLACES = ("at night", "in the rain", "near the sea", "on a hill", "in winter", "under a roof", "by the wall", "in fog")


@dataclass
class Corpus:
    folder: Path
    clean: list[Path] = field(default_factory=list)
    defects: dict[Path, str] = field(default_factory=dict)  # what the doctor must say of it


def noise(rng, width, height, octaves=5, first=3):
    """Fractal noise from 0 to 1: clouds, earth, skin of stone."""
    plane = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = first * 2**octave
        grid = rng.random((max(cells * height // width, 2), cells)).astype(np.float32)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        plane += np.asarray(layer) / 2**octave
    return (plane - plane.min()) / max(float(np.ptp(plane)), 1e-6)


def colored(plane, dark, light):
    """A plane from 0 to 1 as a ramp between two colors."""
    ramp = np.asarray(dark, np.float32) + plane[..., None] * (np.asarray(light, np.float32) - np.asarray(dark))
    return Image.fromarray(ramp.clip(0, 255).astype(np.uint8))


def color(rng, low=0, high=256):
    return tuple(int(value) for value in rng.integers(low, high, 3))


def grained(image, rng, sigma):
    """The image with the grain of a sensor."""
    plane = np.asarray(image, np.float32)
    return Image.fromarray((plane + rng.normal(0, sigma, plane.shape)).clip(0, 255).astype(np.uint8))


def things(image, rng, count, scale=1.0):
    """Shapes of every kind, with shading and outline or without, drawn over the image."""
    pen = ImageDraw.Draw(image)
    width, height = image.size
    for _ in range(count):
        x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height
        r = scale * rng.uniform(0.05, 0.22) * min(width, height)
        fill, line = color(rng), color(rng, 0, 90)
        kind = rng.integers(4)
        if kind == 0:
            pen.ellipse((x - r, y - r * 0.8, x + r, y + r * 0.8), fill=fill, outline=line, width=3)
        elif kind == 1:
            pen.rectangle((x - r, y - r * 0.6, x + r, y + r * 0.6), fill=fill, outline=line, width=2)
        else:
            turns = sorted(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 9))))
            lengths = r * rng.uniform(0.5, 1.2, len(turns))
            corners = [(x + s * math.cos(a), y + s * math.sin(a)) for a, s in zip(turns, lengths, strict=True)]
            pen.polygon(corners, fill=fill, outline=line)
        if kind < 2:
            pen.ellipse((x - r / 3, y - r / 3, x - r / 6, y - r / 6), fill=(250, 250, 250))
    return image


def landscape(rng, width, height):
    """Sky, hills with texture, trees and grass."""
    sky = colored(noise(rng, width, height, 4), color(rng, 60, 160), color(rng, 150, 255))
    pen = ImageDraw.Draw(sky)
    horizon = rng.uniform(0.3, 0.6) * height
    for hill in range(3):
        ground = colored(noise(rng, width, height, 7), color(rng, 0, 90), color(rng, 70, 190))
        x = np.linspace(0, rng.uniform(4, 9), width)
        edge = horizon + hill * height / 8 + np.sin(x + rng.uniform(0, 6)) * height / 14 + noise(rng, width, 2)[0] * 9
        mask = Image.fromarray(((np.arange(height)[:, None] > edge[None]) * 255).astype(np.uint8))
        sky.paste(ground, (0, 0), mask)
    for _ in range(int(rng.integers(0, 500))):  # grass and reeds
        x, y = rng.uniform(0, width), rng.uniform(horizon + height / 5, height)
        pen.line((x, y, x + rng.normal(0, 5), y - rng.uniform(5, 40)), fill=color(rng, 20, 200), width=2)
    return things(sky, rng, int(rng.integers(2, 6)), 0.7)


def street(rng, width, height):
    """Houses with rows of windows, bricks and, now and then, a sign."""
    image = colored(noise(rng, width, height, 3), color(rng, 90, 170), color(rng, 160, 250))
    pen = ImageDraw.Draw(image)
    x = -20.0
    while x < width:
        wide, top = rng.uniform(0.15, 0.35) * width, rng.uniform(0.1, 0.5) * height
        wall = color(rng, 60, 210)
        pen.rectangle((x, top, x + wide, height), fill=wall)
        if rng.random() < 0.4:
            for row, y in enumerate(np.arange(top, height, 11)):
                pen.line((x, y, x + wide, y), fill=tuple(v - 30 for v in wall))
                for brick in np.arange(x + row % 2 * 14, x + wide, 28):
                    pen.line((brick, y, brick, y + 11), fill=tuple(v - 30 for v in wall))
        step = rng.uniform(0.04, 0.08) * width
        for left in np.arange(x + step / 2, x + wide - step, step * 1.6):
            for y in np.arange(top + step, height * 0.9, step * 2):
                pen.rectangle((left, y, left + step * 0.8, y + step * 1.2), fill=color(rng, 0, 120), outline="white")
        x += wide
    if rng.random() < 0.5:
        sign(image, rng)
    return image


def sign(image, rng):
    """A panel with a word on it, somewhere in the scene."""
    width, height = image.size
    font = ImageFont.load_default(int(rng.uniform(0.04, 0.07) * height))
    text = SIGNS[rng.integers(len(SIGNS))]
    pen = ImageDraw.Draw(image)
    x, y = rng.uniform(0.05, 0.4) * width, rng.uniform(0.32, 0.6) * height
    left, top, right, bottom = pen.textbbox((x, y), text, font=font)
    pen.rectangle((left - 12, top - 10, right + 12, bottom + 10), fill=color(rng, 150, 256), outline="black", width=3)
    pen.text((x, y), text, font=font, fill=color(rng, 0, 90))


def portrait(rng, width, height):
    """A sharp head with hair before a ground that is out of focus."""
    ground = things(landscape(rng, width, height), rng, 12).filter(ImageFilter.GaussianBlur(min(width, height) / 40))
    pen = ImageDraw.Draw(ground)
    x, y, r = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.5), min(width, height) * rng.uniform(0.2, 0.3)
    skin = color(rng, 120, 230)
    pen.ellipse((x - 1.6 * r, y + r, x + 1.6 * r, y + 4 * r), fill=color(rng))
    pen.ellipse((x - r * 0.8, y - r, x + r * 0.8, y + r), fill=skin)
    for side in (-1, 1):
        eye = x + side * r * 0.35
        pen.ellipse((eye - r / 7, y - r / 4, eye + r / 7, y - r / 10), fill="white", outline="black", width=2)
        pen.ellipse((eye - r / 16, y - r / 5, eye + r / 16, y - r / 9), fill=color(rng, 0, 120))
    pen.arc((x - r / 3, y + r * 0.2, x + r / 3, y + r * 0.6), 20, 160, fill=(120, 40, 40), width=3)
    hair = color(rng, 0, 130)
    for _ in range(400):
        a = rng.uniform(math.pi, 2 * math.pi)
        s, e = rng.uniform(0.85, 1.05), rng.uniform(0.1, 0.6)
        start = (x + math.cos(a) * r * 0.8 * s, y + math.sin(a) * r * s)
        pen.line((*start, start[0] + rng.normal(0, r / 6), start[1] + r * e), fill=hair, width=1)
    return ground


def illustration(rng, width, height):
    """Flat colors and outlines, large areas empty."""
    image = Image.new("RGB", (width, height), color(rng, 200, 256) if rng.random() < 0.6 else "white")
    return things(image, rng, int(rng.integers(4, 14)))


def ink(rng, width, height):
    """Black lines and hatching on paper."""
    image = Image.new("RGB", (width, height), (250, 248, 240))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(8, 25))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        points = np.array((x, y)) + np.cumsum(rng.normal(0, min(width, height) / 25, (20, 2)), axis=0)
        pen.line([tuple(point) for point in points], fill=(20, 20, 30), width=int(rng.integers(1, 5)))
    for _ in range(4):
        x, y = rng.uniform(0, 0.8) * width, rng.uniform(0, 0.8) * height
        for step in range(int(rng.integers(10, 40))):
            pen.line((x + step * 6, y, x + step * 6 - 40, y + 70), fill=(40, 40, 40), width=1)
    return image


def close_up(rng, width, height):
    """Pebbles, leaves or cloth filling the frame."""
    plane = noise(rng, width, height, 6, 5)
    image = colored(plane, color(rng, 0, 100), color(rng, 120, 256))
    if rng.random() < 0.4:  # woven
        threads = np.add.outer(np.sin(np.arange(height) * 0.9), np.sin(np.arange(width) * 0.9)) / 4
        return colored((plane + threads).clip(0, 1), color(rng, 0, 100), color(rng, 120, 256))
    pen, base = ImageDraw.Draw(image), color(rng, 40, 200)
    for _ in range(1500):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(3, 22)
        tint = tuple(int(value + rng.normal(0, 25)) for value in base)
        pen.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=tint, outline=tuple(v // 2 for v in tint))
    return image


def night(rng, width, height):
    """Dark, with lights and their halos."""
    image = colored(noise(rng, width, height, 5) * 0.4, (2, 4, 16), (70, 70, 110))
    lights = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(lights)
    for _ in range(int(rng.integers(15, 60))):
        x, y, r = rng.uniform(0, width), rng.uniform(0.2, 0.9) * height, rng.uniform(2, 8)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=color(rng, 150, 256))
    halo = np.asarray(lights.filter(ImageFilter.GaussianBlur(9)), np.float32) * 2
    total = np.asarray(image, np.float32) + halo + np.asarray(lights, np.float32)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def emoji(rng, width, height):
    """One of our own drawings, large, on a ground."""
    if rng.random() < 0.7:
        with Image.open(DEMO[rng.integers(len(DEMO))]) as file:
            drawing = file.convert("RGB")
    else:
        with Image.open(POCKET) as file:
            x, y = int(rng.integers(10)) * 64, int(rng.integers(4)) * 64
            drawing = file.convert("RGB").crop((x, y, x + 64, y + 64))
    side = int(min(width, height) * rng.uniform(0.5, 0.9))
    large = drawing.resize((side, side), Image.Resampling.LANCZOS).filter(ImageFilter.UnsharpMask(4, 200, 0))
    edge = np.asarray(large.convert("L").point(lambda value: 255 if value < 235 else 0))
    ground = colored(noise(rng, width, height, int(rng.integers(1, 5))), color(rng, 90, 200), color(rng, 160, 256))
    ground.paste(large, (int(rng.integers(width - side)), int(rng.integers(height - side))), Image.fromarray(edge))
    return things(ground, rng, 2, 0.5)


SCENES = (landscape, street, portrait, illustration, ink, close_up, night, emoji)


def scene(rng, number):
    """A clean image: one of the kinds, in one of the sizes, with a camera's grain or without."""
    width, height = (int(side) // 8 * 8 for side in rng.uniform(540, 860, 2))
    while max(width, height) > 2 * min(width, height):
        width, height = (int(side) // 8 * 8 for side in rng.uniform(540, 860, 2))
    maker = SCENES[number % len(SCENES)]
    image = maker(rng, width, height)
    if maker in (landscape, street, portrait, close_up, night) and rng.random() < 0.8:
        image = grained(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9))), rng, rng.uniform(1, 7))
    return image


def series(rng):
    """Three images of one scene that differ in the face or in what was put there."""
    ground = emoji(rng, 704, 640)
    made = []
    for _ in range(3):
        image = ground.copy()
        pen = ImageDraw.Draw(image)
        x, y, r = rng.uniform(0.35, 0.65) * 704, rng.uniform(0.35, 0.65) * 640, rng.uniform(60, 110)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=color(rng), outline="black", width=4)
        pen.arc((x - r / 2, y - r / 2, x + r / 2, y + r / 2), 0, float(rng.uniform(60, 300)), fill="white", width=8)
        made.append(image)
    return made


def caption(rng):
    words = random.Random(int(rng.integers(2**31)))
    return f"{words.choice(MANNERS)} {words.choice(NOUNS)} {words.choice(PLACES)}, {words.choice(NOUNS)}"


def save(folder, name, image, rng, text):
    """The image in one of the usual formats, with a caption."""
    kind = ("png", "jpg", "jpg", "webp", "bmp")[rng.integers(5)]
    path = folder / f"{name}.{kind}"
    options = {"jpg": {"quality": int(rng.integers(72, 96))}, "webp": {"quality": 85, "method": 0}}
    image.save(path, **options.get(kind, {"compress_level": 1} if kind == "png" else {}))
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def watermarked(image, rng):
    """Lettering along the upper or lower border, translucent or on a strip, that an eye would see."""
    width, height = image.size
    size = int(height * rng.uniform(0.03, 0.07))
    text, pen = MARKS[rng.integers(len(MARKS))], ImageDraw.Draw(image)
    while pen.textlength(text, ImageFont.load_default(size)) > 0.94 * width:
        size -= 1
    font = ImageFont.load_default(size)
    long = pen.textlength(text, font)
    x = (width * 0.03, (width - long) / 2, width * 0.97 - long)[rng.integers(3)]
    y = height * 0.02 if rng.random() < 0.3 else height * 0.975 - size * 1.25
    layer = Image.new("RGBA", image.size)
    ink_pen = ImageDraw.Draw(layer)
    box = (int(x), int(y), int(x + long), int(y + size * 1.25))
    light = np.asarray(image.convert("L").crop(box)).mean() < 128
    if rng.random() < 0.3:
        ink_pen.rectangle((0, y - size * 0.2, width, y + size * 1.4), fill=(*((0,) * 3 if light else (255,) * 3), 170))
    ink_pen.text((x, y), text, font=font, fill=(*((255,) * 3 if light else (0,) * 3), int(rng.uniform(140, 250))))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def blurred(image, rng):
    """Out of focus, or shaken."""
    side = math.sqrt(image.width * image.height)
    if rng.random() < 0.7:
        return grained(image.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.008, 0.016))), rng, 2)
    reach = int(side * rng.uniform(0.025, 0.04))
    plane, total = np.asarray(image, np.float32), np.zeros((image.height, image.width, 3), np.float32)
    for step in range(reach):
        total += np.roll(plane, (step // 2, step), axis=(0, 1))
    return Image.fromarray((total / reach).astype(np.uint8)).crop((reach, reach, *image.size))


def again(image, rng):
    """The same image as it comes back from the internet."""
    width, height = image.size
    kind = rng.integers(5)
    if kind == 0:
        return image.resize((int(width * 0.9), int(height * 0.9)), Image.Resampling.BICUBIC)
    if kind == 1:
        return ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))
    if kind == 2:
        cut = rng.uniform(0.01, 0.035)
        return image.crop((int(width * cut), int(height * cut), int(width * (1 - cut)), int(height * (1 - cut))))
    if kind == 3:
        return ImageOps.mirror(image)
    return ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.25))


def torn(path, rng):
    """Cut the file off, or break it in the middle."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * rng.uniform(0.3, 0.9))])


STYLED = ("an oil painting of a {}", "{}, watercolor", "{} in the style of Rembrandt", "{}, anime style, sitting")
STYLED += ("a digital illustration of a {}", "{}, art by J. Miller", "{} in impressionist style")


def defective(folder, number, kind, rng):  # noqa: C901 - one branch for each kind
    """One image with one defect; gives back its path, and that of the image it repeats."""
    name, text = f"defect-{number:03}-{kind}", caption(rng)
    image = scene(rng, number)
    if kind in ("watermark", "blurry") and number % len(SCENES) in (5, 6):  # an eye finds neither on cloth or at night
        image = scene(rng, number + 2)
    if kind in ("exact_duplicate", "near_duplicate"):
        first = save(folder, f"{name}-first", image, rng, text)
        if kind == "exact_duplicate":
            return Path(shutil.copy(first, folder / f"{name}{first.suffix}")), first
        return save(folder, name, again(image, rng), rng, caption(rng)), first
    if kind == "too_small":
        image = image.resize((int(image.width * 0.45), int(image.height * 0.45)), Image.Resampling.LANCZOS)
    elif kind == "extreme_aspect":
        image = scene(rng, 0).resize((1500, 700)).crop((0, 150, 1500, int(rng.integers(500, 600))))
    elif kind == "blurry":
        image = blurred(image, rng)
    elif kind == "watermark":
        image = watermarked(image, rng)
    elif kind == "no_caption":
        text = None if rng.random() < 0.5 else "  \n"
    elif kind == "long_caption":
        text = ", ".join(caption(rng) for _ in range(14))
    elif kind == "style_in_caption":
        text = STYLED[rng.integers(len(STYLED))].format(NOUNS[rng.integers(len(NOUNS))])
    path = save(folder, name, image, rng, text)
    if kind == "truncated":
        torn(path, rng)
    elif kind == "unreadable_image":
        path.write_bytes((b"<html>not found</html>", b"", rng.bytes(5000))[rng.integers(3)])
    elif kind == "transparent":
        path.unlink()
        path = path.with_suffix(".png")
        hole = Image.fromarray((noise(rng, *image.size, 2) > 0.5).astype(np.uint8) * 255)
        image.putalpha(hole)
        image.save(path, compress_level=1)
    elif kind == "exif_rotation":
        path.unlink()
        path = path.with_suffix(".jpg")
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(2, 9))
        image.save(path, exif=exif)
    return path, None


KINDS = ("unreadable_image", "truncated", "too_small", "blurry", "blurry", "extreme_aspect", "exact_duplicate")
KINDS += ("near_duplicate", "near_duplicate", "watermark", "watermark", "exif_rotation", "transparent", "no_caption")
KINDS += ("long_caption", "style_in_caption")


def drawn(path, seed=0, size=(600, 560), caption=None):
    """One sound image, with a caption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    illustration(np.random.default_rng(seed), *size).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def sound(folder):
    """Twelve sound images."""
    for number in range(12):
        drawn(folder / f"{number:02}.png", number, caption=f"ana, {NOUNS[number]}, {number} birds")
    return folder


def make(folder, seed, clean=300, defects=64):
    """A whole corpus; the same seed makes the same files."""
    folder.mkdir(parents=True)
    corpus = Corpus(folder)
    rng = np.random.default_rng(seed)
    while len(corpus.clean) < clean - len(corpus.clean) % 3:
        number = len(corpus.clean)
        images = series(rng) if number % 12 == 0 else [scene(rng, number)]
        for image in images:
            name = f"clean-{len(corpus.clean):03}"
            corpus.clean.append(save(folder, name, image, rng, caption(rng)))
    for number in range(defects):
        kind = KINDS[number % len(KINDS)]
        path, first = defective(folder, number, kind, np.random.default_rng((seed, number)))
        corpus.defects[path] = kind
        if first is not None:
            corpus.clean.append(first)
    return corpus
