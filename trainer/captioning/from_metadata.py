"""The prompt that a generated image carries in its file, as AUTOMATIC1111 and ComfyUI write it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.dataset.errors import UnreadableImage
from trainer.dataset.formats import UNREADABLE, cause_of, exif_of, open_image, read_to_the_end

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
DESCRIPTIONS = (0x010E, 0x010F, 0x0110)  # ImageDescription, Make, Model: ComfyUI's nodes for WebP use them
SETTINGS = re.compile(r"(?:^|\n)(?:Negative prompt:|Steps: \d+, ).*", re.DOTALL)
NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")
WEIGHT = re.compile(r"(?<!\\)[(\[]|(?::\s*[\d.]+\s*)?(?<!\\)[)\]]")  # (word:1.2), ((word)), [word]
KEYWORD = re.compile(r"\b(?:BREAK|AND)\b")
# The inputs of a node that lead to the text of a positive prompt, and those that contain it
TOWARDS = re.compile(r"positive|guider|conditioning\w*|text\w*|clip_[lg]|t5xxl|string\w*|prompt|value")

Nodes = Mapping[str, Mapping[str, Any]]


def prompt_of(image: Path) -> str:
    """Returns the positive prompt in plain words, without weights and networks; empty if the file has none.

    Raises:
        UnreadableImage: It is no image.
    """
    try:
        with image.open("rb") as file, open_image(file) as opened:
            read_to_the_end(opened, file)  # some programs write them there
            texts = _texts(opened)
    except UNREADABLE as error:
        raise UnreadableImage(image, cause_of(image, error)) from None
    found = of_parameters(texts["parameters"]) or of_comfy(texts["prompt"]) or of_comfy(texts["workflow"])
    return plain_prompt(found)


def of_parameters(text: str) -> str:
    """The positive prompt of A1111's text: what stands before the negative prompt and the settings."""
    return SETTINGS.sub("", text, count=1).strip()


def of_comfy(text: str) -> str:
    """The positive prompt of a ComfyUI graph in JSON: the words that a sampler's "positive" input comes from."""
    try:
        return _positive(_nodes(json.loads(text)))
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
        return ""


def plain_prompt(prompt: str) -> str:
    """The prompt as a caption: no weights, brackets, networks and keywords."""
    text = KEYWORD.sub(",", NETWORK.sub("", prompt))
    text = WEIGHT.sub("", text)
    text = re.sub(r"\\([()\[\]])", r"\1", text)
    return ", ".join(part for part in (" ".join(part.split()) for part in re.split(r"[,\n]", text)) if part)


def _texts(file: Image.Image) -> dict[str, str]:
    """The file's texts, by their names in PNG files."""
    texts = {key: file.info.get(key) for key in ("parameters", "prompt", "workflow")}
    found = {key: text if isinstance(text, str) else "" for key, text in texts.items()}
    exif = exif_of(file)
    comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT) if EXIF_IFD in exif else None
    found["parameters"] = found["parameters"] or _comment(comment)
    for tag in DESCRIPTIONS:
        key, _, rest = str(exif.get(tag, "")).partition(":")
        if key.lower() in ("prompt", "workflow"):
            found[key.lower()] = found[key.lower()] or rest.rstrip("\0")
    return found


def _comment(value: object) -> str:
    """EXIF's UserComment: eight bytes name its encoding. UTF-16 is written in either order of its bytes."""
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else ""
    kind, text = value[:8], value[8:]
    if not kind.startswith(b"UNICODE"):
        return (text if kind in (b"ASCII\0\0\0", bytes(8)) else value).decode(errors="replace").strip("\0")
    big = text[::2].count(0) >= text[1::2].count(0)  # Latin letters have a zero first where the high byte is first
    return text.decode("utf-16-be" if big else "utf-16-le", errors="replace").strip("\0\ufeff")


def _nodes(graph: Any) -> Nodes:  # noqa: ANN401 - any JSON
    """Each node's inputs by its number: a value, or where a link comes from as [node, output]."""
    if "nodes" not in graph:
        return {str(key): dict(node["inputs"]) for key, node in graph.items() if "inputs" in node}
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    nodes: dict[str, dict[str, Any]] = {}
    for node in graph["nodes"]:
        inputs: dict[str, Any] = {
            one["name"]: links[one["link"]] for one in node.get("inputs") or () if one.get("link") in links
        }
        values = node.get("widgets_values")
        if isinstance(values, dict):
            inputs = {**values, **inputs}
        elif re.search("text|prompt|string|primitive", str(node.get("type")), re.IGNORECASE):
            texts = [value for value in values or () if isinstance(value, str)]
            inputs = {**{f"text_{number}": text for number, text in enumerate(texts)}, **inputs}
        nodes[str(node["id"])] = inputs
    return nodes


def _link(value: object) -> str | None:
    """The number of the node that an input comes from; None for a plain value."""
    match value:
        case [str() | int() as node, int()]:
            return str(node)
    return None


def _positive(nodes: Nodes) -> str:
    """The words of the first sampler that has any."""
    seen: set[str] = set()
    for node in nodes.values():
        starts = [node[key] for key in ("positive", "guider") if _link(node.get(key))]
        if starts and ("latent_image" in node or "sampler" in node or "sampler_name" in node):
            words = list(_words(nodes, starts, seen))
            if words:
                return ", ".join(dict.fromkeys(words))
    return ""


def _words(nodes: Nodes, starts: Sequence[object], seen: set[str]) -> Iterator[str]:
    """The texts that these links lead to; nodes already `seen` are skipped."""
    ahead = [*reversed(starts)]
    while ahead:
        value = ahead.pop()
        if isinstance(value, str) and value.strip():
            yield value.strip()
        number = _link(value)
        if number is not None and number not in seen:
            seen.add(number)
            inputs = reversed(list(nodes.get(number, {}).items()))
            ahead += [value for key, value in inputs if TOWARDS.fullmatch(key)]
