"""What the browser tests let pass of what the page's server says."""

import pytest
from site_at_work import Site

LIBRARIES = "/home/me/.venv/lib/python3.11/site-packages"
TWICE = f"""ERROR:    Exception in ASGI application
Traceback (most recent call last):
  File "{LIBRARIES}/uvicorn/protocols/http/h11_impl.py", line 411, in run_asgi
    result = await app(  # type: ignore[func-returns-value]
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "{LIBRARIES}/fastapi/routing.py", line 381, in run_endpoint_function
    return await dependant.call(**values)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "{LIBRARIES}/gradio/routes.py", line 1743, in cancel_event
    del app.iterators[body.event_id]
        ~~~~~~~~~~~~~^^^^^^^^^^^^^^^
KeyError: '0a1b2c'
"""
STREAM = f"""Traceback (most recent call last):
  File "{LIBRARIES}/gradio/routes.py", line 1860, in sse_stream
    await asyncio.sleep(check_rate)
asyncio.exceptions.CancelledError

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "{LIBRARIES}/gradio/routes.py", line 1902, in sse_stream
    del blocks._queue.pending_messages_per_session[session_hash]
        ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~^^^^^^^^^^^^^^
KeyError: 'vz87ol1bfi'
"""
CAUSED = STREAM.replace("During handling of the above exception, another", "The above exception was the direct cause")
OWN = """Traceback (most recent call last):
  File "/home/me/atelier/app/pages/runs.py", line 30, in show
    raise KeyError(name)
KeyError: 'ana'
"""


@pytest.fixture
def complaints(tmp_path):
    site = Site(tmp_path)

    def told(output):
        site.output.write_text(output, encoding="utf-8")
        return site.complaints()

    return told


@pytest.mark.parametrize("output", ["", "Atelier is at …\n", TWICE, TWICE * 2, STREAM, CAUSED, TWICE + STREAM])
def test_what_gradio_deletes_twice_is_no_complaint(complaints, output):
    assert complaints(output) == ""


@pytest.mark.parametrize("output", [OWN, TWICE + OWN, OWN + TWICE, STREAM + OWN, OWN + STREAM, TWICE + OWN + TWICE])
def test_an_error_of_ours_beside_it_is_one(complaints, output):
    assert complaints(output).startswith(OWN)


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("KeyError: '0a1b2c'", "RuntimeError: '0a1b2c'"),
        ("/gradio/routes.py", "/gradio/queueing.py"),
        ("/gradio/routes.py", "/app/routes.py"),
        ("del app.iterators[body.event_id]", "del app.tokens[body.event_id]"),
    ],
)
def test_another_error_of_gradio_is_one(complaints, word, other):
    assert word in TWICE
    assert complaints(TWICE.replace(word, other)).startswith("Traceback")
