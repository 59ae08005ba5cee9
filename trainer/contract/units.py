"""Figures as people read them, the same on the page and on the console."""

import unicodedata

from trainer.contract.wording import for_console

# Categories of Unicode that a terminal obeys or that hide what follows: control, format, half characters, line ends
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # which words of some languages, and emoji, are written with


def duration(seconds: float) -> str:
    """A time span: "40 s", "24 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def size(count: float) -> str:
    """Bytes: "48 kB", "0.9 MB", "262 MB", "2.1 GB"."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    if count >= 1e8:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def shown(text: str) -> str:
    """Text from files and users as one line; what a terminal obeys is written out, line breaks too."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if _unseen(letter) else letter for letter in text)


def _unseen(letter: str) -> bool:
    return unicodedata.category(letter) in UNSEEN and letter not in JOINERS


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()


def error_lines(code: str, message: str, hint: str) -> str:
    """An error on a console: its code, what happened, what to do, and where the page's Help lists it."""
    what, remedy = shown(for_console(message)), shown(for_console(hint))
    return f"Error ({shown(code)}): {what}\n  → {remedy}\n  More on the page: /help#{shown(code)}"
