"""Who is logged in, and the little that others may ask."""

from typing import Any

from starlette.requests import HTTPConnection

LOGIN = "/login"
READING = ("GET", "HEAD", "OPTIONS")  # Gradio guards what these show; the login page and its scripts are open
HELD_OPEN = "/gradio_api/heartbeat"  # by a page that is shown: it would go on for as long as a client likes


def logged_in(asking: HTTPConnection) -> bool:
    """Whether who asks has passed the page's login, or there is none.

    Gradio guards its own routes with a dependency that others cannot reach, and that is looked at only after the body
    was read and parsed; this compares what it compares.
    """
    app: Any = asking.scope.get("app")
    if getattr(app, "auth", None) is None:
        return True
    cookies = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(asking.cookies.get(cookie) in app.tokens for cookie in cookies)


def open_to_all(asking: HTTPConnection) -> bool:
    """Whether this is asked also by who is not logged in: to see the login page, or to log in."""
    path: str = asking.scope["path"].rstrip("/")
    if asking.scope.get("method") == "POST":
        return path == LOGIN
    return asking.scope.get("method") in READING and not path.startswith(HELD_OPEN)
