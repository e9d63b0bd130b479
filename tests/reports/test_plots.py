"""Figures show the numbers of the records, and say what they lack."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_records import record
from safetensors.numpy import save_file

import fisherexp
from fisherexp.figures import save
from fisherexp.reports.plots import Request, kinds
from fisherexp.reports.plots._style import label
from fisherexp.reports.plots.cost import undominated
from fisherexp.reports.records import read_records

CORRUPTIONS = ("fog", "snow")


def stream(method, seed, level):
    found = record(method, seed, 50.0, scenario="continual")
    curve = {f"curve/{i:03d}_{n}": level + i for i, n in enumerate(["clean", "fog", "clean", "snow", "clean"])}
    found["metrics"]["after"] = {f"error/{n}": level for n in CORRUPTIONS} | curve | {"mean_error": level}
    return found


def drawn(kind, records, **request):
    figure = kinds()[kind].draw(records, Request(**request))
    figure.canvas.draw()
    return figure


def lines(axes):
    """Label -> points of what was drawn as lines or error bars."""
    handles, labels = axes.get_legend_handles_labels()
    found = {}
    for handle, name in zip(handles, labels, strict=True):
        line = handle[0] if isinstance(handle, tuple) else handle
        found[name] = [tuple(map(float, point)) for point in line.get_xydata()]
    return found


def test_every_kind_describes_itself():
    assert set(kinds()) >= {
        "trade_off",
        "sweep",
        "corruptions",
        "forgetting",
        "collapse",
        "projection",
        "fisher",
        "cost",
    }
    assert all(len(kind.description) > 20 for kind in kinds().values())


def compressed(method, bits, accuracy, errors):
    found = record(method, 0, 50.0)
    found["metrics"]["after"] = {"effective_bits": bits, "test_accuracy": accuracy}
    found["better"] = {"effective_bits": "lower", "test_accuracy": "higher"}
    found["outcome"] = {"layers": {name: {"output_error": error} for name, error in errors.items()}}
    return found


def test_compression_trades_bits_for_accuracy_and_loses_outputs_layer_by_layer():
    runs = [compressed("rtn", 2.0, 80.0, {"a": 0.4, "b": 0.2}), compressed("qera_exact", 3.0, 90.0, {"a": 0.1, "b": 0})]
    axes = drawn("trade_off", runs).axes[0]
    assert lines(axes) == {"rtn": [(2.0, 80.0)], "qera_exact": [(3.0, 90.0)]}
    axes = drawn("layer_errors", runs).axes[0]
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1  # beside the lines, not over them
    assert lines(axes) == {"rtn": [(0.0, 0.4), (1.0, 0.2)], "qera_exact": [(0.0, 0.1)]}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="no run here keeps the output error of its layers"):
        drawn("layer_errors", [record("ssd", 0, 90.0)])


@pytest.mark.parametrize(
    ("metric", "heading", "shown"),
    [
        ("test_bits", "test bits per\ntoken", "test bits per token"),
        ("multiply_adds", "multiply\nadds", "multiply adds"),
        ("retain_accuracy", "retain\nacc. %", "retain acc. (%)"),
    ],
)
def test_a_label_is_the_heading_on_one_line(metric, heading, shown):
    assert label([record("rtn", 0, 90.0) | {"headings": {metric: heading}}], metric) == shown


def test_no_heading_breaks_a_word():
    """On one line, as in a summary and at an axis, it would read 'per- plexity'."""
    files = (Path(fisherexp.__file__).parent).glob("**/*.py")
    assert [file.name for file in files if re.search(r"\w-\\n\w", file.read_text(encoding="utf-8"))] == []
    assert re.search(r"\w-\\n\w", r'"per-\nplexity"')  # the control


def test_trade_off_places_methods_and_references():
    runs = [record(m, s, v + s) for m, v in (("ssd", 90.0), ("erm", 80.0)) for s in (0, 1)]
    for run in runs:
        run["metrics"]["oracle"] = {"retain_accuracy": 70.0, "forget_accuracy": 0.0}
    points = lines(drawn("trade_off", runs).axes[0])
    assert points == {"(oracle)": [(0.0, 70.0)], "erm": [(19.5, 80.5)], "ssd": [(9.5, 90.5)]}


def test_trade_off_joins_the_points_of_a_swept_option():
    runs = [record("ssd", 0, 90 + 10 * a, alpha=a) for a in (0.8, 0.2, 0.4)] + [record("erm", 0, 80.0)]
    axes = drawn("trade_off", runs).axes[0]
    points = lines(axes)
    assert points["ssd, by alpha"] == [(8.0, 92.0), (6.0, 94.0), (2.0, 98.0)]  # in the order of α
    assert points["erm"] == [(20.0, 80.0)]
    assert [text.get_text() for text in axes.texts] == ["0.2", "0.4", "0.8"]


@pytest.mark.parametrize(("worst", "scale"), [(3e6, "log"), (90.0, "linear")])
def test_trade_off_of_perplexities_without_the_runs_that_have_no_bits(worst, scale):
    runs = [record(method, 0, 90.0) for method in ("rtn", "gptq", "erm")]
    for run, bits, perplexity in zip(runs, (2.5, 4.5, None), (worst, 60.0, 57.0), strict=True):
        run["metrics"]["after"] = {"test_perplexity": perplexity} | ({"effective_bits": bits} if bits else {})
    axes = drawn("trade_off", runs).axes[0]
    assert axes.get_yscale() == scale
    assert lines(axes) == {"rtn": [(2.5, worst)], "gptq": [(4.5, 60.0)]}


def test_sweep_finds_the_swept_option_and_its_band():
    runs = [record("ssd", s, 90 + 10 * a + s, alpha=a) for a in (0.2, 0.4, 0.8) for s in (0, 1)]
    axes = drawn("sweep", runs).axes[0]
    assert axes.get_xlabel() == "method.alpha"
    assert lines(axes)["ssd"] == [(0.2, 92.5), (0.4, 94.5), (0.8, 98.5)]
    half_width = 12.706 * 0.70711 / 2**0.5  # Student's t with one degree of freedom
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((92.5 - half_width, 98.5 + half_width), rel=1e-4)


def test_methods_of_different_settings_are_no_sweep():
    with pytest.raises(ValueError, match="none was"):
        drawn("sweep", [record("ssd", 0, 90.0, alpha=0.1), record("erm", 0, 80.0, alpha=0.2)])


def test_forgetting_takes_the_clean_stretches_in_order():
    figure = drawn("forgetting", [stream("tent", 0, 10.0), stream("tent", 1, 20.0)])
    assert lines(figure.axes[0])["tent"] == [(0.0, 15.0), (1.0, 17.0), (2.0, 19.0)]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["before", "fog", "snow"]


@pytest.mark.parametrize(
    ("stretches", "ticks"),
    [
        (["clean", "fog", "clean", "snow", "clean"], ["before", "fog", "snow"]),
        (["fog", "clean", "snow", "clean"], ["fog", "snow"]),  # clean images to adapt on come behind alone
        (["clean", "fog_4", "fog_5", "clean"], ["before", "fog 5"]),
    ],
)
def test_forgetting_names_what_came_before_each_look(stretches, ticks):
    found = stream("tent", 0, 10.0)
    found["metrics"]["after"] = {f"curve/{i:03d}_{name}": 10.0 for i, name in enumerate(stretches)}
    (axes,) = drawn("forgetting", [found]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ticks


def test_corruptions_stand_side_by_side():
    figure = drawn("corruptions", [stream("tent", 0, 10.0), stream("eata", 0, 5.0)])
    found = {name: [y for _, y in points] for name, points in lines(figure.axes[0]).items()}
    assert found == {"eata": [5.0, 5.0], "tent": [10.0, 10.0]}


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_front_of_undominated(better):
    points = [(1.0, 5.0), (2.0, 7.0), (2.0, 6.0), (3.0, 4.0), (4.0, 9.0)]
    sign = 1 if better == "higher" else -1
    expected = [p for p in points if not any(q[0] <= p[0] and sign * q[1] > sign * p[1] for q in points)]
    assert undominated(points, better) == sorted(expected)


def tuned(method, kept, reached, numbers):
    found = record(method, 0, 0.0)
    found["metrics"]["after"] = {"source_accuracy": kept, "test_accuracy": reached, "trained_numbers": numbers}
    found["better"] = {"source_accuracy": "higher", "test_accuracy": "higher"}
    return found


TUNED = [tuned("full", 50.0, 95.0, 9000), tuned("lora", 80.0, 93.0, 400)]
TUNED += [tuned("dora", 70.0, 90.0, 500), tuned("head_only", 99.0, 70.0, 50)]


@pytest.mark.parametrize(
    ("kind", "options", "front"),
    [
        ("trade_off", {}, [(99.0, 70.0), (80.0, 93.0), (50.0, 95.0)]),  # without dora, which lora beats in both
        ("cost", {"x": "trained_numbers"}, [(50.0, 70.0), (400.0, 93.0), (9000.0, 95.0)]),
    ],
)
def test_fine_tuning_reaches_and_keeps_or_pays(kind, options, front):
    axes = drawn(kind, TUNED, **options).axes[0]
    assert [line.get_xydata().tolist() for line in axes.get_lines() if line.get_zorder() == 0] == [
        [list(point) for point in front]
    ]
    assert set(lines(axes)) == {"full", "lora", "dora", "head_only"}


def test_a_front_needs_to_know_which_way_is_better():
    runs = [run | {"better": {"test_accuracy": "higher"}} for run in TUNED]
    assert all(line.get_zorder() != 0 for line in drawn("trade_off", runs).axes[0].get_lines())


@pytest.mark.parametrize(("cost", "says"), [("trained_numbers", "its numbers trained"), ("memory", "its peak memory")])
def test_a_cost_that_a_record_lacks_is_named(cost, says):
    with pytest.raises(ValueError, match=f"'erm' does not say {says}"):
        drawn("cost", [record("erm", 0, 90.0)], x=cost)


def test_what_runs_left_in_their_folders(tmp_path):
    run = record("mixup", 0, 90.0) | {"folder": str(tmp_path)}
    columns = [
        "clean/nc1",
        "clean/nc2_equinorm_means",
        "clean/nc2_angle_means",
        "clean/nc3",
        "clean/nc4",
        "clean/accuracy",
    ]
    with (tmp_path / "neural_collapse.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["epoch", *columns], [1, *range(1, 7)], [3, *range(2, 8)]])
    figure = drawn("collapse", [run])
    (line,) = figure.axes[3].get_lines()
    assert line.get_xydata().tolist() == [[1, 4], [3, 5]]
    points = np.arange(8.0).reshape(1, 4, 2)
    rows = np.array([[[0.0, 1.0], [-1.0, -0.5], [1.0, -0.5]]])
    picture = {"same": points, "different": -points, "lambda": np.linspace(0, 1, 4)[None], "rows": rows}
    save_file({f"picture/{k}": v for k, v in picture.items()}, tmp_path / "neural_collapse.safetensors")
    upper, lower = drawn("projection", [run]).axes
    np.testing.assert_array_equal(upper.collections[0].get_offsets(), points[0])
    np.testing.assert_array_equal(lower.collections[0].get_offsets(), -points[0])


def test_fisher_masses(tmp_path):
    run = record("fisher", 0, 90.0) | {"folder": str(tmp_path), "outcome": {"trace_by_layer": {"a": 0.75, "b": 0.25}}}
    run["config"] = {"method": {"importance": {"gradients": "per_sample", "labels": "empirical"}}}
    save_file({"a": np.array([3.0, 0.0]), "b": np.array([[1.0]])}, tmp_path / "fisher.safetensors")
    bars, curve = drawn("fisher", [run]).axes
    assert [bar.get_width() for bar in bars.patches] == [75.0, 25.0]
    assert curve.get_lines()[0].get_xydata().tolist() == [[1, 3], [2, 1]]


@pytest.mark.parametrize("kind", ["corruptions", "forgetting", "collapse", "projection", "fisher", "sweep"])
def test_runs_without_what_a_kind_needs_are_refused_in_words(kind, tmp_path):
    with pytest.raises(ValueError, match=r"run|swept"):
        drawn(kind, [record("erm", 0, 90.0) | {"folder": str(tmp_path)}])


@pytest.mark.parametrize("kind", ["trade_off", "cost"])
def test_runs_without_a_usual_pair_of_metrics_are_refused_in_words(kind):
    run = record("sinkhorn", 0, 90.0)
    run["metrics"]["after"] = {"error": 0.1, "gap": 0.2}
    with pytest.raises(ValueError, match=r"no usual metric .* choose from error, gap"):
        drawn(kind, [run])
    assert drawn("trade_off", [run], x="error", y="gap").axes  # the control: chosen, they are drawn


def test_several_problems_do_not_share_a_figure():
    with pytest.raises(ValueError, match="several kinds of data"):
        drawn("trade_off", [record("erm", 0, 90.0), record("erm", 0, 90.0, data="mnist")])


def test_files(tmp_path):
    figure = drawn("cost", [record("erm", 0, 90.0), record("ssd", 0, 95.0)], x="seconds")
    for kind in ("png", "pdf"):
        save(figure, tmp_path / f"a.{kind}")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match=r"\.png, \.pdf"):
        save(drawn("cost", [record("erm", 0, 90.0)]), tmp_path / "a.xyz")


def test_barrier_averages_the_curves_of_all_seeds():
    runs = [record("weight_matching", seed, 90.0, scenario="none") for seed in (0, 1)]
    for run in runs:
        naive = [0.0, 1.0 + run["seed"], 0.2]
        run["outcome"] = {"curve": {"naive": naive, "matched": [0.0, 0.1, 0.2]}}
    (axes,) = drawn("barrier", [*runs, record("erm", 0, 90.0, scenario="none")]).axes
    points = lines(axes)
    assert points["naive"] == [(0.0, 0.0), (0.5, 1.5), (1.0, 0.2)]
    assert points["matched"] == [(0.0, 0.0), (0.5, 0.1), (1.0, 0.2)]
    with pytest.raises(ValueError, match="method=weight_matching"):
        drawn("barrier", [record("erm", 0, 90.0)])


def test_peaks_of_memory_are_metrics_of_what_is_read(tmp_path):
    """Not of a run whose record has the peak of its process, as records once had it."""
    for name, memory in (("erm", {"memory_mib": 812.0}), ("ssd", {"resident_mib": 900.0})):
        folder = tmp_path / name / "digits" / "0"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("{}")
        (folder / "run.json").write_text(json.dumps(record(name, 0, 90.0) | {"memory": memory}))
    read = {run["names"]["method"]: run["metrics"]["after"] for run in read_records(tmp_path).records}
    assert read["erm"]["memory_mib"] == 812.0
    assert not {"memory_mib", "resident_mib"} & read["ssd"].keys()
