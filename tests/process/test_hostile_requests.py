"""A page that is open to the network, and clients without its password (tests/benchmarks/hostile_requests.py)."""

import psutil
import pytest
from benchmarks.hostile_requests import MIB, PASSWORD, Hostile, cases, logged_in
from site_at_work import Site

GROWTH_BYTES = 100 * MIB
# 400: more headers than uvicorn reads; 429: not at once, who asks a thousand things
SEEN = {"a body with GET": {"413"}, "a WebSocket": {"200", "401", "403"}, "3,000 questions at once": {"200"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_PASSWORD", PASSWORD)
        site = Site(tmp_path_factory.mktemp("home"), "--listen", "127.0.0.1")
        site.start()
        yield site
        site.kill()


@pytest.fixture(scope="module")
def server(site):
    logged_in(site.port)  # what the first login loads is no growth
    process = psutil.Process(site.process.pid)
    return process, process.memory_info().rss


@pytest.mark.parametrize("name", [name for name in cases() if name != "a slow body"])  # which is waited for
def test_a_hostile_request_is_turned_away_in_little_memory(site, server, name):
    process, before = server
    answer = Hostile(site.port).send(cases()[name]())
    assert answer in SEEN.get(name, {"400", "401", "408", "413", "414", "431"})
    assert process.memory_info().rss - before < GROWTH_BYTES
    assert site.answers("/") == 200
    assert not site.complaints()
