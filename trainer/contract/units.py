"""Figures as people read them, the same on the page and on the console."""

from trainer.contract.wording import for_console


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


def error_lines(code: str, message: str, hint: str) -> str:
    """An error on a console: its code, what happened, what to do, and where the page's Help lists it."""
    return f"Error ({code}): {for_console(message)}\n  → {for_console(hint)}\n  More on the page: /help#{code}"
