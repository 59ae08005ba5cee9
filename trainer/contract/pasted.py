"""Paths and names as people paste them: quoted, as an address, with marks nobody sees. One reader for all of them.

A text that names something as it stands is never changed: a folder may really be called `"mira"` or `50%20off`.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from trainer.contract.errors import InvalidSettings

PAIRS = {'""', "''", "``", "„“", "„”", "“”", "””", "«»", "»«", "「」"}
PAIRS |= {"\u2018\u2019", "\u201a\u2018", "\u201a\u2019", "\u2019\u2019", "\u2039\u203a", "\u203a\u2039"}  # single ones
LONE = '"“”„«»'  # an apostrophe alone may be a name's; cmd.exe leaves a quote behind after "D:\photos\"
# Marks of direction and of width zero, byte order marks: file managers and chats put them around what is copied
UNSEEN = "\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\x01-\x1f\x7f"
AROUND = re.compile(rf"^[\s{UNSEEN}]+|[\s{UNSEEN}]+$")
WITHIN = re.compile(rf"[{UNSEEN}]")
ADDRESSED = re.compile(r"<.*[/\\].*>")  # as mail programs write an address
ESCAPED = re.compile(r"\\([ ()\[\]{}&'\"!$`;*?~#<>|,=@^\\])")  # as terminals write a dragged file
FILE = re.compile(r"file:(?://(?:localhost|127\.0\.0\.1)?(?=/)|(?=/(?!/)))?", re.IGNORECASE)
OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\\w")
OF_NETWORK = re.compile(r"(?:smb|afp|nfs|cifs|sftp|ftp|ftps|davs?|ssh|mtp|s3|gs)://", re.IGNORECASE)
CIVITAI = re.compile(r"(?:https?://)?(?:www\.)?civitai\.\w+/|urn:air:", re.IGNORECASE)
HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/+|hf:(?://)?", re.IGNORECASE)
WEB = re.compile(rf"https?://|{CIVITAI.pattern}|{HUB.pattern}", re.IGNORECASE)
NO_MODELS = {"datasets", "spaces", "docs", "papers", "collections", "blog", "api", "models"}


def pasted(written: str) -> str:
    """Returns the path or name that was meant by what somebody typed or pasted, as it stands where that exists.

    Without what is around it (spaces, quotes, unseen marks, a line end), and without what other programs put into it:
    `file://` and percent signs, a terminal's backslashes. What cannot be understood comes back as it is.
    """
    text, before = written, None
    while text != before:  # a path in quotes in a file's address, and what else was copied twice
        before, text = text, _read(text)
    return text


def pasted_model(written: str) -> str:
    """Returns the base model that was meant: a path, or owner/name where it is an address of the Hugging Face hub."""
    text = pasted(written)
    address = HUB.match(text)
    if _there(text) or not address:
        return text
    parts = re.split(r"[?#]", text[address.end() :], maxsplit=1)[0].strip("/").split("/")
    if len(parts) < 2 or parts[0] in NO_MODELS:
        return text
    name, rest = "/".join(parts[:2]).removesuffix(".git"), parts[2:]
    if rest[:1] in (["tree"], ["blob"], ["resolve"], ["raw"]):
        if rest[1:2] not in ([], ["main"]):  # another state of the repository than the one that is downloaded
            return text
        rest = rest[2:]
    file = unquote("/".join(rest))
    return f"{name}/{file}" if file.lower().endswith(".safetensors") else name


def path_of(written: str) -> Path:
    """Returns the path that was meant, with ~ expanded.

    Raises:
        InvalidSettings: It is an address on the web or the network, or another system's path.
    """
    text = pasted(written)
    if not _there(text):
        _refuse_elsewhere(text)
    return Path(os.path.expanduser(text))  # noqa: PTH111 - unlike Path's own it leaves an unknown ~name


def host_of(written: str) -> str:
    """Returns the host, with its port if it has one, of an address as a browser shows it."""
    return re.sub(r"^\w+://", "", bare(written)).split("/", maxsplit=1)[0]


def bare(written: str) -> str:
    """Returns a text without what is around it: spaces, quotes, unseen marks, a line end."""
    text, before = written, None
    while text != before:
        before = text
        text = re.sub(r"^& (?=['\"])", "", AROUND.sub("", text))  # as PowerShell writes a dragged file
        if len(text) > 1 and (text[0] + text[-1] in PAIRS or ADDRESSED.fullmatch(text)):
            text = text[1:-1]
        elif text[:1] in LONE or text[-1:] in LONE:
            text = text.strip(LONE)
    return text


def _there(text: str) -> bool:
    return os.path.lexists(os.path.expanduser(text))  # noqa: PTH111 - and it says no to what no file can have


def _read(written: str) -> str:
    """The text with one layer of what was put around it taken away; as it is where that exists."""
    if _there(written):
        return written
    plain = bare(written)
    forms = [plain, *_meant(plain)]
    return next((form for form in forms if _there(form)), forms[1])


def _meant(written: str) -> Iterator[str]:
    """What the text can mean, the likeliest first; the others are only meant if they are there."""
    address = FILE.match(written)
    text = _from_address(written[address.end() :]) if address else written
    if os.name == "posix" and not address and not OF_WINDOWS.match(text):
        text = ESCAPED.sub(r"\1", text)
    yield text
    if address:
        yield written[address.end() :]
    if WEB.match(text):
        return
    plain = WITHIN.sub("", text)
    spaced = re.sub(r"[^\S\n]", " ", plain)  # without spaces that do not break
    yield from (plain, spaced, unquote(text, errors="surrogateescape"))
    yield from (unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))  # as other systems spell an ä
    yield re.sub(r"^(?:\$HOME|\$\{HOME\}|%USERPROFILE%|\$env:USERPROFILE)(?=[\\/])", "~", plain, flags=re.IGNORECASE)
    if os.name == "posix":
        yield plain.replace("\\", "/")


def _from_address(rest: str) -> str:
    """The path in a file's address, of what follows "file:"."""
    path = unquote(rest, errors="surrogateescape")
    drive = re.match(r"/{0,3}([A-Za-z])[:|](?=/)", path)
    if drive:
        return f"{drive[1]}:{path[drive.end() :]}"
    if re.match(r"/{2}[^/~]", path):  # another computer's
        return path.replace("/", "\\")
    return path[2:] if path.startswith("//~") else path


def _refuse_elsewhere(text: str) -> None:
    shown = text[:120]
    if WEB.match(text):
        if CIVITAI.match(text):
            what, hint = "an address of Civitai", "Download the .safetensors file there and give its path."
        elif HUB.match(text):
            what, hint = (
                "an address of the Hugging Face hub that names no model in its main state",
                "For a base model give owner/name, as in stable-diffusion-v1-5/stable-diffusion-v1-5; "
                "else download the file and give its path.",
            )
        else:
            what, hint = "a web address", "Download what is there and give the path of the file or folder."
    elif OF_NETWORK.match(text):
        what, hint = "an address on the network", "Mount the share, and give the folder where it appears."
    elif os.name == "posix" and OF_WINDOWS.match(text):
        what, hint = "a path of Windows, and this computer has another system", _hint_of_windows(text)
    else:
        return
    raise InvalidSettings(f"{shown} is {what}.", hint=hint)


def _hint_of_windows(text: str) -> str:
    mounted = Path("/mnt", text[:1].lower(), *re.split(r"[\\/]+", text[3:]))  # as WSL shows the drives
    if text[1:2] == ":" and _there(str(mounted)):
        return f"Give it as {mounted}."
    return "Give the path as this computer has it."
