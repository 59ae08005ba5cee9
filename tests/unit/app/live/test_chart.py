import json
import math
import random
import re
import shutil
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.kit.text import ENGLISH
from app.live.chart import MAX_POINTS, LossChart, chart_data, smoothed, thinned, trend
from trainer.contract.events import RunStarted, RunView, Sample, Step
from trainer.contract.home import CHECKOUT

SCRIPT = CHECKOUT / "assets" / "chart.js"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the chart's JavaScript is not run")

any_losses = st.lists(st.floats(), max_size=300)
finite_losses = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)

# Enough of a browser to run chart.js: the elements of the template, which remember what is set on them.
BROWSER = """
const fs = require("node:fs");
const { script, names, value, next, width } = JSON.parse(fs.readFileSync(0, "utf8"));
const nodes = Object.fromEntries(names.map((name) => ["." + name, {
  textContent: "", innerHTML: "", set: {},
  setAttribute(name, value) { this.set[name] = value; },
  getBoundingClientRect: () => ({ left: 0 }),
  closest: (wanted) => (wanted === "." + name ? {} : null),
}]));
const listeners = {}, props = { value };
const element = {
  querySelector: (wanted) => nodes[wanted],
  addEventListener: (name, listener) => { listeners[name] = listener; },
};
let resize, bring;
globalThis.document = { addEventListener: (name, listener) => { if (name === "atelier:chart") bring = listener; } };
globalThis.ResizeObserver = class { constructor(call) { resize = call; } observe() {} };
const shown = [];
const show = () => shown.push(Object.fromEntries(names.map((name) => {
  const { textContent, innerHTML, set } = nodes["." + name];
  return [name, { text: textContent, inside: innerHTML, ...set }];
})));
const asKey = (key) => ({ key, target: nodes[".chart-plot"], preventDefault() {} });
Function("element", "trigger", "props", "server", "upload", "watch", script)(
  element, null, props, null, null, null);
bring({ detail: JSON.parse(value) });
show();
resize([{ contentRect: { width } }]);
show();
listeners.click({ target: nodes[".chart-log"] });
listeners.pointermove({ target: nodes[".chart-plot"], clientX: width });
show();
bring({ detail: JSON.parse(next) });
show();
listeners.keydown(asKey("ArrowLeft"));
show();
listeners.keydown(asKey("Escape"));
show();
process.stdout.write(JSON.stringify(shown));
"""


def a_step(number, loss, lr=1e-4):
    return Step(step=number, epoch=0.0, loss=loss, lr=lr, grad_norm=1.0, seconds=1.0, memory_gib=1.0)


def a_start(resumed_at=0):
    return RunStarted(
        family="pocket", base_model="pocket", steps_total=10, resumed_at=resumed_at, device="cpu", memory_gib=1.0,
        versions={},
    )  # fmt: skip


def a_sample(step, index=0):
    return Sample(step=step, index=index, prompt="ball", seed=1, file=f"samples/{step:06}-{index}.png")


def a_view(losses):
    return RunView(steps=[a_step(i, loss) for i, loss in enumerate(losses, start=1)])


def column(data, index):
    return [point[index] for point in data["points"]]


def test_a_constant_loss_is_its_own_average_from_the_first_step():
    assert smoothed([0.25] * 100) == pytest.approx([0.25] * 100)


def test_two_losses_average_by_their_corrected_weights():
    assert smoothed([1.0, 3.0], weight=0.95)[-1] == pytest.approx((0.95 * 1.0 + 3.0) / 1.95)


@settings(deadline=None)
@given(finite_losses, st.floats(0.0, 0.99))
def test_the_average_is_the_weighted_sum_of_all_losses_so_far(losses, weight):
    weights = [weight ** (len(losses) - 1 - i) for i in range(len(losses))]
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    rounding = 1e-6 * max(map(abs, losses)) + 1e-300  # halving the smallest numbers there are gives zero
    assert smoothed(losses, weight)[-1] == pytest.approx(expected, rel=1e-6, abs=rounding)


def test_losses_that_are_not_finite_are_passed_over():
    assert smoothed([1.0, math.nan, 3.0, math.inf])[1:] == pytest.approx([1.0, (0.95 + 3) / 1.95, (0.95 + 3) / 1.95])
    assert math.isnan(smoothed([math.nan, 2.0])[0])
    assert smoothed([math.nan, 2.0])[1] == pytest.approx(2.0)


@settings(deadline=None)
@given(any_losses, st.integers(5, 80))
def test_thinning_keeps_ends_and_extremes_within_its_bound(losses, bound):
    kept = thinned(losses, bound)
    assert len(kept) <= bound
    assert kept == sorted(set(kept))
    if losses:
        assert (kept[0], kept[-1]) == (0, len(losses) - 1)
    finite = [loss for loss in losses if math.isfinite(loss)]
    if finite:
        assert {min(finite), max(finite)} <= {losses[i] for i in kept}
    if len(finite) < len(losses):
        assert any(not math.isfinite(losses[i]) for i in kept)


@settings(deadline=None)
@given(st.integers(0, 100))
def test_a_run_that_fits_is_not_thinned(count):
    assert thinned([0.1] * count, bound=100) == list(range(count))


def test_thinning_keeps_every_narrow_spike():
    losses = [0.1] * 20_000
    spikes = {7, 1234, 9_999, 19_998}
    for spike in spikes:
        losses[spike] = 5.0
    assert spikes <= set(thinned(losses, MAX_POINTS))


def test_a_new_step_leaves_the_drawn_curve_as_it_is():
    rng = random.Random(0)
    losses = [rng.random() for _ in range(10_001)]
    before, after = thinned(losses[:-1], MAX_POINTS), thinned(losses, MAX_POINTS)
    assert [i for i in before if i < 9_900] == [i for i in after if i < 9_900]


@settings(deadline=None)
@given(any_losses, st.floats())
def test_whatever_the_losses_the_data_is_strict_json(losses, lr):
    view = RunView(steps=[a_step(i, loss, lr) for i, loss in enumerate(losses, start=1)])
    data = chart_data(view, total=500, max_points=50)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert len(data["points"]) <= 50


def test_a_point_is_step_loss_average_and_learning_rate():
    data = chart_data(RunView(steps=[a_step(1, 1.0, 2e-4), a_step(2, 3.0, 1e-4)]), total=10)
    assert data["points"] == [[1, 1.0, 1.0, 2e-4], [2, 3.0, 2.0256, 1e-4]]
    assert data["total"] == 10


def test_a_loss_that_is_not_a_number_is_a_gap_and_said():
    data = chart_data(a_view([1.0, math.inf, 1.0, math.nan]), total=10)
    assert column(data, 1) == [1.0, None, 1.0, None]
    assert column(data, 2) == [1.0, 1.0, 1.0, 1.0]
    assert data["summary"] == "The loss is NaN or infinite at step 4 of 10."


def test_an_empty_run_says_so():
    data = chart_data(RunView(), total=0)
    assert (data["points"], data["markers"], data["total"]) == ([], [], 0)
    assert data["summary"] == "No steps yet: the curve starts with the first one."


def test_one_step_is_one_point_without_a_trend():
    data = chart_data(a_view([0.5]), total=100)
    assert data["points"] == [[1, 0.5, 0.5, 1e-4]]
    assert data["summary"] == "Loss 0.500 at step 1 of 100."


def test_previews_are_marked_once_a_step_in_order():
    view = RunView(samples=[a_sample(200, 0), a_sample(200, 1), a_sample(0, 0), a_sample(100, 0)])
    assert chart_data(view, total=500)["markers"] == [0, 100, 200]


def test_a_resumed_run_shows_each_step_once():
    kept = [a_start(), a_sample(0), a_step(1, 1.0), a_step(2, 1.0)]
    lost = [a_step(3, 9.0), a_step(4, 9.0), a_sample(4)]
    view = RunView().fold([*kept, *lost, a_start(resumed_at=2), a_step(3, 1.0)])
    data = chart_data(view, total=10)
    assert column(data, 0) == [1, 2, 3]
    assert column(data, 2) == [1.0, 1.0, 1.0]  # what was dropped has no part in the average
    assert data["markers"] == [0]


def test_the_summary_tells_where_the_loss_is_and_was_lowest():
    falling = [1.0 - 0.001 * i for i in range(500)]
    end = smoothed(falling)[-1]
    assert chart_data(a_view(falling), 1000)["summary"] == (
        f"Loss {end:.3f}, falling; lowest {end:.3f} at step 500 of 1000."
    )
    valley = [abs(i - 300) / 1000 for i in range(1, 501)]
    averages = smoothed(valley)
    lowest = min(range(20, 500), key=averages.__getitem__)
    assert chart_data(a_view(valley), 500)["summary"] == (
        f"Loss {averages[-1]:.3f}, rising; lowest {averages[lowest]:.3f} at step {lowest + 1} of 500."
    )


def test_a_lucky_first_step_is_not_the_lowest():
    told = chart_data(a_view([0.001, *[0.5] * 400]), 500)["summary"]
    assert told == "Loss 0.500, steady; lowest 0.486 at step 21 of 500."  # 0.5 - 0.499 x 0.05 x 0.95^20 / (1 - 0.95^21)


def test_a_run_beyond_its_plan_ends_at_its_last_step():
    assert chart_data(a_view([0.5, 0.5]), total=1)["summary"] == "Loss 0.500 at step 2 of 2."


def test_scatter_is_no_trend_but_a_slope_within_it_is():
    rng = random.Random(3)
    scatter = [rng.random() for _ in range(1000)]
    assert trend([0.2] * 10) == 0
    assert trend([0.0, 1.0] * 100) == 0
    assert trend([loss - 0.001 * i for i, loss in enumerate(scatter)]) == -1
    assert trend([loss + 0.001 * i for i, loss in enumerate(scatter)]) == 1


def test_the_words_can_be_translated():
    data = chart_data(a_view([0.5] * 50), 50, "de")
    assert data["summary"].startswith("Loss 0.500, gleichbleibend; am niedrigsten 0.500 bei Schritt ")
    assert data["words"]["steady"] == "gleichbleibend"


def test_twenty_thousand_steps_are_ready_at_once():
    rng = random.Random(0)
    view = a_view([rng.random() for _ in range(20_000)])
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        data = chart_data(view, total=20_000)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.3  # 0.04 s when nothing else runs; work that grows with the square takes minutes
    assert len(data["points"]) <= MAX_POINTS


def test_the_component_sends_its_value_as_one_json_text():
    data = chart_data(a_view([0.5, 0.25]), total=2)
    chart = LossChart(data, elem_id="loss")
    assert json.loads(chart.value) == data
    assert chart.get_config()["value"] == chart.value
    assert json.loads(LossChart().value) == chart_data(RunView(), total=0)


def test_gradio_can_make_the_component_anew_to_change_a_property():
    chart = LossChart(elem_id="loss")
    assert LossChart(**{**chart.constructor_args, "visible": False, "render": False}).elem_id == "loss"


def test_gradio_leaves_no_stub_beside_the_source():
    assert list(CHECKOUT.glob("app/**/*.pyi")) == []


def test_template_and_style_do_not_depend_on_the_value():
    chart = LossChart()
    for text in (chart.html_template, chart.css_template):
        assert not re.search(r"\$\{|\{\{|`|\\", text)  # marks of Gradio's two template languages


def test_the_script_is_short_and_asks_nobody():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    for asks in ("http", "fetch(", "import(", "import ", "url("):
        assert asks not in text


@needs_node
def test_the_script_is_javascript():
    subprocess.run([NODE, "--check", SCRIPT], check=True, capture_output=True)


def browse(value, following, width=600):
    """What the chart's elements hold: hidden, shown, on the log scale read out at the right, updated, a key, Escape."""
    given_to_it = {
        "script": SCRIPT.read_text(encoding="utf-8"),
        "names": re.findall(r'class="([\w-]+)"', LossChart.TEMPLATE),
        "value": json.dumps(value),
        "next": json.dumps(following),
        "width": width,
    }
    done = subprocess.run(
        [NODE, "-e", BROWSER], input=json.dumps(given_to_it), check=True, capture_output=True, encoding="utf-8"
    )
    return json.loads(done.stdout)


def places(path):
    """The points of a path, with the first of each part marked."""
    return [(mark, float(x), float(y)) for mark, x, y in re.findall(r"([ML])([\d.-]+) ([\d.-]+)", path)]


@needs_node
def test_the_curve_is_drawn_to_scale_and_broken_where_the_loss_is():
    hidden, drawn, *_ = browse(chart_data(a_view([1.0, 0.0, math.nan, 1.0]), 8), chart_data(RunView(), 0))
    assert "d" not in hidden["chart-raw"]
    raw = places(drawn["chart-raw"]["d"])
    assert [mark for mark, _, _ in raw] == ["M", "L", "M"]
    x = [x for _, x, _ in raw]
    assert x == pytest.approx([48 + step / 8 * (600 - 70) for step in (1, 2, 4)], abs=0.06)
    (_, _, high), (_, _, low), (_, _, again) = raw
    assert (high, again) < (low, low)  # downwards on a screen
    assert high == again
    assert drawn["chart-plot"]["viewBox"] == "0 0 600 240"


@needs_node
def test_switch_and_readout_survive_an_update():
    first, second = chart_data(a_view([1.0, 0.1]), 3), chart_data(a_view([1.0, 0.1, 0.01]), 3)
    second["markers"] = [0, 3]
    _, linear, log, updated, moved, left = browse(first, second)
    assert [view["chart-log"]["aria-pressed"] for view in (linear, log, updated)] == ["false", "true", "true"]
    assert linear["chart-readout"]["text"] == ENGLISH["chart.legend"] == left["chart-readout"]["text"]
    assert log["chart-readout"]["text"] == "step 2 · loss 0.1 · smoothed 0.5385 · learning rate 1.00e-4"
    assert updated["chart-readout"]["text"].startswith("step 3 · loss 0.01 · ")  # the pointer rests at the right end
    assert moved["chart-readout"]["text"].startswith("step 2 · ")
    assert left["chart-cursor"]["d"] == left["chart-dot"]["d"] == ""
    (_, _, one), (_, _, tenth), (_, _, hundredth) = places(updated["chart-raw"]["d"])
    assert tenth - one == pytest.approx(hundredth - tenth, abs=0.2)  # decades are equally high
    assert updated["chart-marks"]["d"].count("M") == 2
    assert updated["chart-plot"]["aria-label"] == f"Loss by step. {second['summary']}"


@needs_node
@pytest.mark.parametrize("width", [340, 1600])
@pytest.mark.parametrize(
    "losses", [[], [0.0], [0.0, 0.0], [-1.0, 1.0], [1e-30, 1e30], [5e-324], [1.7e308, -1.7e308], [0.1 + 1e-9, 0.1]]
)
def test_no_losses_make_the_drawing_fail(losses, width):
    data = chart_data(a_view(losses), 1000)
    for view in browse(data, data, width)[1:]:
        text = json.dumps({name: {**held, "text": ""} for name, held in view.items()})
        assert not re.search("NaN|Infinity|undefined", text)
        labels = re.findall(r'<text x="([\d.-]+)"', view["chart-grid"]["inside"])
        assert all(0 < float(x) < width for x in labels)
