"""Text from a file of whatever encoding."""

import codecs
import re

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # ahead of UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
UNFIT = re.compile(r"[\0-\x1f\x7f-\x9f\ufeff]")  # control characters, and a mark that strayed into the text
JAPANESE = re.compile(r"[\0-\x7f\u3000-\u30ff\u4e00-\u9fff\uff01-\uff5e]*")
KANA = re.compile(r"[\u3041-\u30fa]")
PLAIN = re.compile(rb"[\t\n\r -~]")
WESTERN = 0.7  # share of plain letters in a text of a Western language
CHINESE = re.compile(r"[\0-\x7f\u2014\u2018-\u201d\u2026\u3000-\u3011\u4e00-\u9fff\uff01-\uff5e]*")


def decoded(data: bytes) -> tuple[str, str]:
    """The text, and the name of its encoding where that is a guess: neither marked nor UTF-8."""
    marked = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "")
    if marked or not _is_wide(data):
        try:
            return data.decode(marked or "utf-8"), ""
        except UnicodeDecodeError:
            pass
    encoding, name = (marked, f"damaged {marked[:6].upper()}") if marked else _guessed(data)
    return data.decode(encoding, errors="replace"), name


def plain(text: str) -> str:
    """The text on one line, with blanks for what no caption can hold."""
    return " ".join(UNFIT.sub(" ", text).encode(errors="replace").decode().split())


def _guessed(data: bytes) -> tuple[str, str]:
    """The likeliest encoding of text that is not UTF-8, and its name."""
    if not _is_wide(data):
        if _is_japanese(data):
            return "cp932", "Shift JIS"
        if _is_chinese(data):
            return "gb18030", "GBK"
        if b"\0" not in data or len(PLAIN.findall(data)) >= WESTERN * len(data):
            return "cp1252", "Windows-1252"
    return ("utf-16-be" if _begins_high(data) else "utf-16-le"), "UTF-16 without its mark"


def _is_wide(data: bytes) -> bool:
    """Whether this is UTF-16 of an alphabet: every other byte says then which one, and looks like a control character.

    A zero or two that strayed into a text of single bytes make none.
    """
    if b"\0" not in data:
        return False
    halves = data[::2], data[1::2]
    high, low = halves if _begins_high(data) else halves[::-1]
    controls = sum(byte < ord(" ") for byte in high)
    return controls > max(1, len(high) / 2) and low.count(0) < len(low) / 4


def _begins_high(data: bytes) -> bool:
    """Whether the higher byte of each pair comes first: it is the one that is zero in blanks and Latin letters."""
    return data[::2].count(0) > data[1::2].count(0)


def _is_japanese(data: bytes) -> bool:
    """Whether this is Japanese in Shift JIS: Western text, read so, makes no kana."""
    try:
        text = data.decode("cp932")
    except UnicodeDecodeError:
        return False
    return bool(JAPANESE.fullmatch(text) and KANA.search(text))


def _is_chinese(data: bytes) -> bool:
    """Whether this is simplified Chinese in GBK: Western text, read so, rarely makes characters in use."""
    try:
        text = data.decode("gb18030")
        pairs = text.encode("gb2312")
    except UnicodeError:
        return False
    signs = [pairs[place] for place in _first_bytes(pairs) if pairs[place] >= 0xB0]  # 0xB0 to 0xD7: those in daily use
    return bool(CHINESE.fullmatch(text)) and sum(first <= 0xD7 for first in signs) * 2 > len(signs)


def _first_bytes(pairs: bytes) -> list[int]:
    """Where the two-byte characters begin."""
    places, place = [], 0
    while place < len(pairs):
        if pairs[place] < 0x80:
            place += 1
        else:
            places.append(place)
            place += 2
    return places
