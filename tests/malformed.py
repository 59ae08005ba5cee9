"""Images and captions as no program should have written them, made from a seed."""

import io
import random
import struct
import zlib

from PIL import Image

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF"}


def image(rng, kind):
    """A sound image's bytes."""
    noisy = Image.frombytes("RGB", (48, 48), rng.randbytes(48 * 48 * 3)).resize((96, 64), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    noisy.save(buffer, format=FORMATS[kind])
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, pixels, before=b"", bits=8, colors=2):
    header = struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bomb(megabytes):
    """A few kB of zlib that unpack to as many zeros."""
    return zlib.compress(bytes(megabytes * 2**20), 9)


def odd_files(rng):
    """Files that are no image, or lie about what they are, by name."""
    yield "html.png", b"<!doctype html><title>404</title><p>Not found"
    yield "empty.jpg", b""
    yield "zeros.webp", bytes(4096)
    yield "text.bmp", b"BM" + b"not really" * 50
    yield "svg.png", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield "zip.jpg", b"PK\x03\x04" + rng.randbytes(500)
    yield "postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    yield "huge.png", png(2**31 - 1, 2**31 - 1, bomb(1))
    yield "wide.png", png(10**6, 10**6, bomb(1))
    yield "bomb.png", png(20_000, 20_000, bomb(20))
    yield "nothing.png", png(0, 0, b"")
    yield "flat.png", png(64, 0, zlib.compress(b""))
    yield "lies.png", png(500, 500, zlib.compress(bytes(10)))
    yield "more.png", png(4, 4, bomb(30))
    yield "bits.png", png(16, 16, zlib.compress(bytes(4096)), bits=7)
    yield "colors.png", png(16, 16, zlib.compress(bytes(4096)), colors=5)
    text = b"Comment\0\0" + bomb(80)
    yield "text-bomb.png", png(16, 16, zlib.compress(bytes(16 * 49)), before=chunk(b"zTXt", text))
    profile = b"icc\0\0" + zlib.compress(rng.randbytes(3000))
    yield "profile.png", png(96, 96, zlib.compress(bytes(96 * 289)), before=chunk(b"iCCP", profile))
    sound = image(rng, "jpg")
    yield "exif.jpg", sound[:2] + b"\xff\xe1\x00\x20Exif\0\0II*\0" + rng.randbytes(20) + sound[2:]
    at = sound.index(b"\xff\xc0")
    yield "tall.jpg", sound[: at + 5] + struct.pack(">HH", 65500, 65500) + sound[at + 9 :]
    yield "hollow.jpg", sound[: len(sound) // 2] + bytes(len(sound) // 2)
    yield "png-inside.jpg", image(rng, "png")
    yield "jpg-inside.png", sound


def captions(rng):
    """Caption files that are odd, as bytes."""
    yield "invalid", b"caf\xe9 \xff\xfe\x80"
    yield "utf16", "ein Bär, groß".encode("utf-16-le")
    yield "utf16-bom", "ein Bär".encode("utf-16")
    yield "long", b"word, " * 170_000
    yield "one-word", b"x" * 1_000_000
    yield "nul", b"a\0b\0\0c"
    yield "control", bytes(range(32)) + b" text"
    yield "noise", rng.randbytes(2000)
    yield "bom", b"\xef\xbb\xbf"
    yield "lines", b"\r\n\r\r\n\x0b\x0c" * 50
    yield "braces", b"{a|{b|" * 500
    yield "wildcards", b"{a|b}{c|d}" * 2000
    yield "commas", b",,,,, ,,  ,"
    yield "surrogates", "a\ud800b".encode("utf-8", "surrogatepass")
    yield "emoji", "🦊👨‍👩‍👧‍👦".encode() * 40
    yield "right-to-left", "\u202eexe.gnp\u202c عربى".encode()
    yield "tokens", b"<|endoftext|><|startoftext|>" * 60
    yield "markup", b"[red]</bold>[link=file:///etc/passwd]<script>"


def make(folder, seed=0):
    """A folder of more than 200 of them; gives back how many."""
    rng = random.Random(seed)
    count = 0
    for kind in FORMATS:
        for number in range(14):
            data = bytearray(image(rng, kind))
            if number % 2:
                del data[int(len(data) * rng.uniform(0.02, 0.98)) :]
            else:
                for _ in range(rng.choice((1, 4, 40))):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            if number % 4 == 2:  # the header, where the sizes stand
                data[rng.randrange(4, 60)] = rng.randrange(256)
            (folder / f"{'cut' if number % 2 else 'flipped'}-{number}.{kind}").write_bytes(data)
            count += 1
    for name, data in odd_files(rng):
        (folder / name).write_bytes(data)
        count += 1
    for name, data in captions(rng):
        for suffix in ("txt", "caption"):
            (folder / f"caption-{name}-{suffix}.png").write_bytes(image(rng, "png"))
            (folder / f"caption-{name}-{suffix}.{suffix}").write_bytes(data)
            count += 1
    for number in range(64):
        (folder / f"header-{number}.{rng.choice(list(FORMATS))}").write_bytes(
            image(rng, rng.choice(list(FORMATS)))[: rng.randrange(1, 80)] + rng.randbytes(rng.randrange(300))
        )
        count += 1
    (folder / "folder.png").mkdir()
    (folder / "folder.txt").mkdir()
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    return count + 4
