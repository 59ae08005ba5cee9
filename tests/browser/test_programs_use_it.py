"""The same actions for programs, as Help tells them."""

from gradio_client import Client
from site_at_work import DEMO, QUICK, Site, reached, until


def test_a_program_starts_follows_and_stops_a_training_by_named_parameters(site: Site):
    client = Client(site.url, verbose=False)
    name = client.predict(
        preset="pocket-character",
        dataset_images=str(DEMO),
        output_name="program",
        dataset_views=400,
        preview_prompts="bell",
        preview_steps=QUICK["preview"]["steps"],
        api_name="/start",
    )
    run = site.run("program")
    assert run.path.name == name
    assert (run.config().adapter.text_encoder, run.config().dataset.views) == (True, 400)  # a preset's, and the given
    until(lambda: reached(run, 2), "the training has begun")
    told = client.predict(run=name, api_name="/status")
    assert told["state"] == "running"
    assert told["step"] >= 2
    client.predict(run=name, api_name="/stop")
    until(lambda: client.predict(run=name, api_name="/status")["state"] == "stopped", "the training has stopped")
    assert [one["run"] for one in client.predict(api_name="/runs")] == [name]
    assert client.predict(api_name="/queue") == []


def test_what_cannot_be_done_is_told_to_the_program(site: Site):
    client = Client(site.url, verbose=False)
    try:
        client.predict(run="no-such-run", api_name="/status")
    except Exception as error:  # noqa: BLE001 - the client's own kind is not public
        assert "no-such-run" in str(error)
    else:
        raise AssertionError("a run that is not there has a status")
