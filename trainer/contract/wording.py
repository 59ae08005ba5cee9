"""Remedies that console and page word in their own terms: a sentence names them, each side says them as its users do.

A message or a hint is written once. Where it names a setting or something to do, it holds a mark made by `setting`,
`named` or `action`; the console shows `--model.precision fp32` there, the page the control's label. Events keep the
marks, so that whoever shows an old run words it too.
"""

import re

MARK = re.compile(r"⟦(setting|named|action):([^=⟦⟧]*)(?:=([^⟦⟧]*))?⟧")
# What the console's user types, by the action; {} is its argument
CONSOLE = {
    "listen": "--listen {}",
    "allow_host": "--allow-host {}",
    "port": "another port (--port 8000)",
    "password": "a password file (--password-file FILE)",
    "resume": "python launch.py train --resume {}",
    "models": "python launch.py models",
    "preset": "--preset {}",
    "presets": "python launch.py presets",
    "caption": "python launch.py caption DIR",
    "projects": "`python launch.py projects` lists them",
    "flags": "`python launch.py {} --help` lists every flag",
    "convert": 'convert it: python launch.py convert "{}"',
    "settings": "`python launch.py train --help` lists every setting with its range",
    "home": "another home folder (--home DIR)",
    "config": "--config FILE",
    "train_on": "python launch.py train {}",
}


def setting(place: str, value: object = None) -> str:
    """Mark a setting to change, with its new value if given: "--model.precision fp32", "Precision: fp32"."""
    return f"⟦setting:{place}⟧" if value is None else f"⟦setting:{place}={value}⟧"


def named(place: str) -> str:
    """Mark a setting by name: "model.precision" on the console, "Precision" on the page."""
    return f"⟦named:{place}⟧"


def action(name: str, argument: object = None) -> str:
    """Mark something to do, one of `CONSOLE`: "python launch.py train --resume ana", "Continue".

    Raises:
        KeyError: There is no such action.
    """
    CONSOLE[name]  # a misspelt name fails where it is written
    return f"⟦action:{name}⟧" if argument is None else f"⟦action:{name}={argument}⟧"


def for_console(text: str) -> str:
    """Returns the text for a console, its marks as flags, names and commands."""
    return MARK.sub(_on_console, text)


def _on_console(mark: re.Match[str]) -> str:
    kind, name, value = mark[1], mark[2], mark[3]
    if kind == "action":
        return CONSOLE.get(name, name).format(value or "")
    if kind == "named":
        return name
    return f"--{name}" if value is None else f"--{name} {value}"
