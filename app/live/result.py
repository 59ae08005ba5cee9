"""A run's result: its files, and what to do with them."""

from collections.abc import Iterator
from contextlib import suppress
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from app.kit.action_errors import carded
from app.kit.cards import alert_card, facts_list, good_card, problem_card
from app.kit.component import PRIVATE
from app.kit.text import label, language, say
from app.kit.wording import html_of
from app.live.monitor import Watch
from app.live.parts import log_tail
from app.live.told import ToldByFile
from app.server.files import run_url
from trainer.contract.errors import TrainerError
from trainer.contract.events import Lora
from trainer.contract.home import Home, user_path
from trainer.contract.units import size
from trainer.models.webuis import find_clients
from trainer.runs import process
from trainer.runs.folder import RunFolder
from trainer.runs.handover import civitai_text, copy_lora
from trainer.runs.sheets import strip_name
from trainer.runs.told import digest_of, for_others

TO_CLIPBOARD = "(text) => { if (text && navigator.clipboard) navigator.clipboard.writeText(text).catch(() => {}); }"


class Result:
    """The section's components; hidden until the shown run has a LoRA file and has ended."""

    def __init__(self, home: Home) -> None:
        self.home = home
        with gr.Column(visible=False, elem_id="result") as self.section:
            gr.Markdown(label("result.heading"), elem_classes="heading")
            self.file = gr.Dropdown([], label=label("result.file"), info=label("result.file_info"), interactive=True)
            self.facts = gr.HTML(apply_default_css=False)
            self.told = ToldByFile(home)
            self.strip = gr.HTML(apply_default_css=False)
            self.generate = gr.Button(label("result.draw_strip"), size="sm", visible=False)
            clients = [(f"{client.name}: {client.lora_folder}", str(client.lora_folder)) for client in find_clients()]
            self.folder = gr.Dropdown(
                clients,
                value=clients[0][1] if clients else None,
                allow_custom_value=True,
                label=label("result.folder"),
                info=label("result.folder_info"),
            )
            with gr.Row(elem_classes="asks"):
                self.copy = gr.Button(label("result.copy"), size="sm", min_width=120)
                self.civitai = gr.Button(label("result.civitai"), size="sm", min_width=120)
                self.again = gr.Button(label("result.again"), size="sm", min_width=120)
                self.continue_training = gr.Button(label("result.go_on"), size="sm", min_width=120)
            self.said = gr.HTML(apply_default_css=False)
            self.text = gr.Textbox(label=label("result.civitai_text"), lines=8, visible=False, buttons=["copy"])

    @property
    def outputs(self) -> list[Any]:
        """What may change."""
        return [self.section, self.file, self.facts, *self.told.outputs, self.strip, self.generate]

    def parts(self, watch: Watch, file: str | None, ended: bool, tongue: str) -> dict[Any, Any]:
        """The run's files, the chosen one's facts and its strength strip; the newest file if none is chosen."""
        loras = {lora.file: lora for lora in reversed(watch.view.loras)}
        if not loras or not ended:
            return self.hidden()
        lora = loras.get(file or "") or next(iter(loras.values()))
        there = (watch.run.path / strip_name(lora.file)).is_file()
        return {
            self.section: gr.update(visible=True),
            self.file: gr.update(
                choices=[(f"{one.file}  ({size(one.bytes)})", one.file) for one in loras.values()], value=lora.file
            ),
            self.facts: facts(watch.run, lora, tongue),
            **self.told.parts(watch.run, lora.file, tongue),
            self.strip: strip(watch.run, lora.file, tongue) if there else "",
            self.generate: gr.update(visible=not there),
        }

    def hidden(self) -> dict[Any, Any]:
        """Returns the updates while there is no file yet."""
        return {self.section: gr.update(visible=False)}

    def wire(self, shown: Component) -> None:
        """The section's buttons; `shown` holds the run's name."""
        chosen = [shown, self.file]
        self.generate.click(self._generate, chosen, [self.generate, self.said], **PRIVATE)
        self.copy.click(carded(self.said, self._copy), [*chosen, self.folder], self.said, **PRIVATE)
        made = self.civitai.click(carded(self.said, self._civitai), chosen, [self.text, self.said], **PRIVATE)
        made.then(None, self.text, None, js=TO_CLIPBOARD, api_visibility="private")

    def _generate(self, run: str, file: str, request: gr.Request) -> Iterator[Any]:
        """Generate the strip in a process of its own; the feed then shows it."""
        tongue = language(request)
        try:
            folder = RunFolder.named(self.home, run)
            child = process.generate_strip(folder, file)
        except TrainerError as error:
            yield gr.skip(), problem_card(error, tongue)
            return
        yield gr.update(interactive=False), good_card(say(tongue, "result.drawing"))
        code = child.wait()
        why = log_tail(folder).splitlines()[-1:] if code == 2 else []  # it says so last
        failed = alert_card(html_of("".join(why), tongue) or say(tongue, "result.draw_failed"))
        yield gr.update(interactive=True), failed if code else ""

    def _copy(self, run: str, file: str, folder: str | None, request: gr.Request) -> str:
        tongue = language(request)
        if not (folder or "").strip():
            return alert_card(say(tongue, "result.no_folder"))
        copied = copy_lora(RunFolder.named(self.home, run), file, user_path(str(folder)))
        return good_card(say(tongue, "result.copied", path=escape(str(copied))))

    def _civitai(self, run: str, file: str, request: gr.Request) -> Any:  # noqa: ANN401
        text = civitai_text(RunFolder.named(self.home, run), file)
        return gr.update(value=text, visible=True), good_card(say(language(request), "result.civitai_copied"))


def facts(run: RunFolder, lora: Lora, tongue: str) -> str:
    """A LoRA file's download link, size, trigger word and hash."""
    word, name, digest = run.config().dataset.trigger_word, lora.file, lora.sha256
    with suppress(TrainerError, OSError):  # moved or deleted by somebody: its address says so when it is used
        version = for_others(run, lora.file)
        if version != run.inside(lora.file):
            name, digest = version.relative_to(run.path).as_posix(), digest_of(version)
    rows = [
        (say(tongue, "result.size"), size(lora.bytes)),
        (say(tongue, "result.trigger"), escape(word) or say(tongue, "result.no_trigger")),
        ("SHA-256", f'<code title="{escape(digest)}">{escape(digest[:16])}…</code>'),
        (say(tongue, "result.where"), f"<code>{escape(str(run.path / name))}</code>"),
    ]
    link = (
        f'<a class="download" href="{run_url(run, name)}" download>'
        f"{say(tongue, 'result.download', file=escape(lora.file))}</a>"
    )
    return link + facts_list(rows)


def strip(run: RunFolder, file: str, tongue: str) -> str:
    """The strength strip's image."""
    url = run_url(run, strip_name(file))
    title = say(tongue, "result.strip")
    return (
        f'<h3>{title}</h3><p class="quiet">{say(tongue, "result.strip_info")}</p>'
        f'<a href="{url}" target="_blank"><img class="strip" src="{url}" alt="{title}" loading="lazy"></a>'
    )
