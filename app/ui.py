"""The page's server: builds the Blocks and launches them; `python -m app.ui`, or `launch.py` without arguments."""

import argparse
import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from getpass import getpass
from pathlib import Path
from typing import NoReturn

import gradio as gr
from gradio.components.navbar import Navbar

from app import api, help
from app.dataset import page as dataset_page
from app.desk.element import place
from app.kit.component import asset
from app.kit.text import I18N, label
from app.kit.theme import STYLES, THEME
from app.live import page as live_page
from app.live.feed import Feed
from app.live.monitor import Watches
from app.runs import page as runs_page
from app.server import connection
from app.server.errors import AddressElsewhere, PasswordMissing, PortRefused, PortTaken
from app.server.files import routes
from app.server.limits import FILE_BYTES
from app.server.safety import login, middleware
from app.settings import page as settings_page
from app.start import page as start_page
from trainer.contract import stops, streams, temporary
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.home import CHECKOUT, Home
from trainer.contract.pasted import host_of, path_of
from trainer.contract.system_errors import system_explained
from trainer.contract.units import error_lines, shown

LOCAL, USER = "127.0.0.1", "atelier"
SHORTEST = 8  # characters of a password
PORTS = range(7860, 7880)
ROOMS = {"nav.start": "/", "nav.dataset": "/dataset", "nav.settings": "/settings", "nav.live": "/live"}
BESIDE = {"nav.runs": "/runs", "nav.help": "/help"}  # what belongs to no project


def build(home: Home, feed: Feed) -> gr.Blocks:
    """Returns all pages."""
    demo = gr.Blocks(title="Atelier", analytics_enabled=False, fill_width=True)
    with demo:
        header(demo, "/")
        start_page.page(home)
        api.register(home, feed.watches)
    others: dict[str, Callable[[], None]] = {
        "dataset": lambda: dataset_page.build(home, demo),
        "settings": lambda: settings_page.page(home),
        "live": lambda: live_page.page(home, feed, demo),
        "runs": lambda: runs_page.build(home, feed.watches, demo),
        "help": lambda: help.build(home),
    }
    for name, made in others.items():
        with demo.route(name.capitalize(), f"/{name}", show_in_navbar=False):
            header(demo, f"/{name}")
            made()
    return demo


def header(demo: gr.Blocks, here: str) -> None:
    """Place the name and the links to the other pages, and what every page does."""
    for script in ("sharp.js", "press.js"):
        demo.load(None, None, None, js=asset(script), api_visibility="private")
    Navbar(main_page_name=False)  # Gradio's own is left empty: ours speaks the reader's language
    with gr.Row(elem_id="header"):
        gr.HTML(f"<h1>{asset('mark.svg')}Atelier</h1>", elem_id="title", padding=False, apply_default_css=False)
        place("project")
        for name, links in (("rooms", ROOMS), ("nav", BESIDE)):
            with gr.Row(elem_id=name):
                for key, path in links.items():
                    classes = ["nav", "here"] if path == here else ["nav"]
                    gr.Button(label(key), link=path, link_target="_self", size="sm", min_width=40, elem_classes=classes)


def free_port(host: str, requested: int | None) -> int:
    """Returns the requested port, or the first free one of ours.

    Raises:
        AddressElsewhere: The host is not this computer.
        PortRefused: The system refuses the requested one.
        PortTaken: None is free.
    """
    for port in [requested] if requested is not None else PORTS:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host.strip("[]"), port))
            except OverflowError as error:
                raise PortRefused(port=port) from error
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                    raise AddressElsewhere(host=host) from error
                if isinstance(error, PermissionError) and requested is not None:
                    raise PortRefused(port=port) from error
                continue
            return port
    asked = f"Port {requested} is" if requested is not None else f"The ports {PORTS[0]} to {PORTS[-1]} are all"
    raise PortTaken(asked=asked)


def chosen_password(listened: str, file: Path | None) -> str:
    """Returns the password of a page that is open to other computers: from the file, the variable, or typed in.

    There is no flag for the password itself: every program on this computer could read it from the process list.

    Raises:
        PasswordMissing: There is none.
        InvalidSettings: It cannot be read, or is soon guessed.
    """
    try:
        password = file.read_text(encoding="utf-8").strip() if file else os.environ.get("ATELIER_PASSWORD", "")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"The password file {file} cannot be read: {error}.", hint="Give a text file.") from None
    if not password and not file and sys.stdin is not None and sys.stdin.isatty():
        password = getpass(f"Password for {USER}, at least {SHORTEST} characters (not shown): ")
    if not password:
        raise PasswordMissing(host=listened, user=USER)
    if len(password) < SHORTEST:
        raise InvalidSettings(
            f"The password is too short: {len(password)} characters.", hint=f"Use at least {SHORTEST} characters."
        )
    return password


def allowed_hosts(given: Sequence[str]) -> list[str]:
    """Returns the names of --allow-host and of the variable ATELIER_ALLOW_HOST; each may hold several with commas."""
    written = [*given, os.environ.get("ATELIER_ALLOW_HOST", "")]
    return [name.strip() for names in written for name in names.split(",") if name.strip()]


def serve(flags: argparse.Namespace) -> None:
    """Show the page until Ctrl-C.

    Raises:
        TrainerError: No port or address to be had, or a page open to the network without a password.
    """
    host = flags.listen or LOCAL
    allowed = allowed_hosts(flags.allow_host)
    guarded = bool(flags.listen or flags.password_file or (allowed and os.environ.get("ATELIER_PASSWORD")))
    password = chosen_password(flags.listen, flags.password_file) if guarded else ""
    guards = middleware([flags.listen] if flags.listen else [], allowed)
    home, port = Home.find(flags.home), free_port(host, flags.port)
    temporary.use(home)
    # Gradio asks its own server whether it is there, and must not ask a proxy
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), LOCAL, "localhost"]))
    connection.use()
    feed = Feed(home, Watches())
    demo = build(home, feed)
    demo._queue.sleep_when_free = 0.05  # Gradio's value on Windows; elsewhere 0.001 s, which costs a tenth of a core
    demo.launch(
        server_name=host,
        server_port=port,
        auth=login(USER, password) if guarded else None,
        max_file_size=FILE_BYTES,
        app_kwargs={
            "middleware": guards,
            "routes": [*feed.routes(), *routes(home)],
        },
        inbrowser=not flags.no_browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        favicon_path=CHECKOUT / "assets" / "mark.svg",
        theme=THEME,
        css_paths=STYLES,
        i18n=I18N,
    )
    sys.stdout.write(f"Atelier is at http://{host}:{port}  (Ctrl-C ends the page; training continues)\n")
    if allowed and not guarded:
        sys.stdout.write("Note: no password is set, and whoever reaches the allowed names may use the page.\n")
    if flags.listen:
        sys.stdout.write("Note: a browser announces the end of a training only on localhost and over https.\n")
    sys.stdout.flush()
    demo.block_thread()


class Parser(argparse.ArgumentParser):
    """The page's flags."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, whatever was typed, and exit with 2."""
        super().error(shown(message))


def main(arguments: Sequence[str]) -> int:
    """Serve the page; returns 0 when the user ended it, 2 on an error the user can act on."""
    parser = Parser(prog="launch.py", description="The page.", allow_abbrev=False)
    parser.add_argument("--home", type=path_of, metavar="DIR", help="Folder for runs and caches.")
    parser.add_argument("--port", type=int, metavar="N", help="Port, else the first free one from 7860 on.")
    parser.add_argument(
        "--listen", type=host_of, metavar="ADDRESS", help="Open the page to other computers; needs a password."
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME[:PORT]",
        action="append",
        default=[],
        help="Name under which a tunnel or proxy shows the page, with the browser's port; may be given several times.",
    )
    parser.add_argument("--password-file", type=path_of, metavar="FILE", help="Holds it, in place of ATELIER_PASSWORD.")
    parser.add_argument("--no-browser", action="store_true", help="Do not open the browser.")
    try:
        with system_explained():
            serve(parser.parse_args(arguments))
    except KeyboardInterrupt:  # before the page was there
        return stops.ENDED_BY_SIGNAL
    except TrainerError as error:
        sys.stderr.write(f"{error_lines(error.code, error.message, error.hint)}\n")
        return 2
    return 0


if __name__ == "__main__":
    stops.interrupt()
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
