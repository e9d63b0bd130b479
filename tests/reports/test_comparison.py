"""What stands in which cell, on hand-made records."""

import pytest
from made_records import record
from scipy import stats

from fisherexp.reports.comparison import compare
from fisherexp.reports.grouping import natural

SSD, ERM = [99.0, 97.0, 96.5], [90.0, 95.0, 91.0]
RUNS = [record("ssd", s, v) for s, v in enumerate(SSD)] + [record("erm", s, v) for s, v in enumerate(ERM)]


def cells(comparison, metric):
    (j,) = [j for j, column in enumerate(comparison.columns) if column.metric == metric]
    return {line.labels[0]: line.cells[j] for line in comparison.lines}


def test_paired_test_against_a_baseline():
    found = cells(compare(RUNS, baseline="erm"), "retain_accuracy")
    assert found["ssd"].p == pytest.approx(stats.ttest_rel(SSD, ERM).pvalue)
    assert found["erm"].p is None


def in_setting(seed, value, method, classes, alpha=0.7):
    found = record(method, seed, value, alpha=alpha)
    found["semantic"]["scenario"] = {"_target_": "class_forgetting", "classes": classes}
    return found


def test_a_row_is_tested_within_its_setting():
    runs = [
        in_setting(s, v + len(c), m, c)
        for c in ([1], [3, 4])
        for m, x in zip(("ssd", "erm"), (SSD, ERM), strict=True)
        for s, v in enumerate(x)
    ]
    for run in runs:  # no option of the scenario, yet of the setting
        run["semantic"]["audit"] = {"shadows": len(run["semantic"]["scenario"]["classes"])}
    runs += [in_setting(s, v, "ssd", [5]) for s, v in enumerate(SSD)]
    comparison = compare(runs, baseline="erm", metrics=["retain_accuracy"])
    p = pytest.approx(stats.ttest_rel(SSD, ERM).pvalue)
    found = {tuple(line.labels): (line.baseline, line.cells[0].p) for line in comparison.lines}
    assert found == {
        ("erm", "shadows=1, classes=[1]"): (True, None),
        ("erm", "shadows=2, classes=[3, 4]"): (True, None),
        ("ssd", "shadows=1, classes=[1]"): (False, p),
        ("ssd", "shadows=2, classes=[3, 4]"): (False, p),
        ("ssd", "classes=[5]"): (False, None),
    }
    assert any(note.startswith("1 row not tested") for note in comparison.notes)


def test_a_baseline_of_several_rows_is_chosen_by_a_filter():
    runs = RUNS + [record("erm", s, v + 1, alpha=0.1) for s, v in enumerate(ERM)]
    with pytest.raises(ValueError, match=r"--baseline 'erm method\.alpha=0\.1'"):
        compare(runs, baseline="erm")
    comparison = compare(runs, baseline="erm method.alpha=0.7")
    assert [line.labels[0] for line in comparison.lines if line.baseline] == ["erm"]
    (ssd,) = [line for line in comparison.lines if line.labels[0] == "ssd"]
    assert ssd.cells[0].p == pytest.approx(stats.ttest_rel(SSD, ERM).pvalue)


def test_best_follows_the_declared_direction_only():
    comparison = compare(RUNS)
    assert {name: cell.best for name, cell in cells(comparison, "retain_accuracy").items()} == {
        "ssd": True,
        "erm": False,
    }
    assert not any(cell.best for cell in cells(comparison, "forget_accuracy").values())
    # Equal means are equally good; a single method has nobody to beat.
    assert all(cell.best for cell in cells(comparison, "seconds").values())
    assert not any(cell.best for cell in cells(compare(RUNS[:3]), "retain_accuracy").values())


def test_best_is_among_methods_for_the_same_problem():
    other = [record("ssd", s, v, data="mnist") for s, v in enumerate([10.0, 11.0])]
    found = compare([*RUNS, *other], metrics=["retain_accuracy"])
    assert {tuple(line.labels): line.cells[0].best for line in found.lines} == {
        ("digits", "erm"): False,
        ("digits", "ssd"): True,
        ("mnist", "ssd"): False,
    }


@pytest.mark.parametrize(
    "ordered",
    [
        ["-2", "-0.5", "0", "1e-5", "3", "20"],
        ["alpha=3, labels=empirical", "alpha=3, labels=pseudo", "alpha=20", "alpha=1e3"],
        ["hidden=[32, 32]", "hidden=[128, 128]", "hidden=[128, 512]"],
        ["task-2", "task-10"],
    ],
)
def test_numbers_are_sorted_as_numbers(ordered):
    turned = list(reversed(ordered))
    turned.sort(key=natural)
    assert turned == ordered


def test_rows_by_the_method_still_say_what_tells_its_rows_apart():
    runs = [record("ssd", s, 90.0 + s, alpha=a) for s in (0, 1) for a in (100.0, 20.0, 3.0)]
    for run in runs:  # another option of the method
        run["semantic"]["method"] |= {"labels": "empirical" if run["seed"] == 0 else "pseudo"}
    found = compare(runs, by=["method", "method.alpha"], metrics=["retain_accuracy"])
    assert found.heads == ["method", "method.alpha", "options"]
    assert [line.labels for line in found.lines] == [
        ["ssd", alpha, f"labels={labels}"] for alpha in ("3.0", "20.0", "100.0") for labels in ("empirical", "pseudo")
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_best_of_a_column_is_one_whichever_run_came_first(turned):
    runs = [
        record(method, s, value + shift + s * value, data=data)
        for data, shift in (("digits", 0.0), ("mnist", 5.0))
        for method, value in (("ssd", 10.0), ("erm", 20.0))
        for s in (0, 1)
    ]
    order = [run for run in runs if run["names"]["method"] == "ssd"]
    order += sorted((r for r in runs if r not in order), key=lambda r: r["names"]["data"], reverse=turned)
    found = compare(order, columns=["data"], metrics=["retain_accuracy"], baseline="erm")
    assert {line.labels[0]: [cell.best for cell in line.cells] for line in found.lines} == {
        "ssd": [False, False],
        "erm": [True, True],
    }
    (ssd,) = [line for line in found.lines if line.labels[0] == "ssd"]
    assert all(cell.p is not None for cell in ssd.cells)


def test_rows_and_columns_by_any_key():
    runs = [record("ssd", s, 90 + 10 * a + s, alpha=a, data=d) for s in (0, 1) for a in (0.5, 0.7) for d in ("x", "y")]
    found = compare(runs, by=["method.alpha"], columns=["data"], metrics=["retain_accuracy"])
    assert found.heads == ["method.alpha"]
    assert [(c.value, c.metric) for c in found.columns] == [("x", "retain_accuracy"), ("y", "retain_accuracy")]
    assert [(line.labels, [c.spread.mean for c in line.cells]) for line in found.lines] == [
        (["0.5"], [95.5, 95.5]),
        (["0.7"], [97.5, 97.5]),
    ]
    assert found.lines[0].counts == [2, 2]


@pytest.mark.parametrize("key", ["data", "scenario", "method", "model"])
def test_no_cell_averages_over_different_questions(key):
    runs = [record("ssd", 0, 90.0), record(**({"method": "ssd", "seed": 0, "retain": 95.0} | {key: "other"}))]
    assert len(compare(runs).lines) == 2  # told apart
    assert compare(runs, columns=[key]).lines[0].counts in ([1, 1], [1, 0], [0, 1])
    with pytest.raises(ValueError, match=f"average over {key}="):
        compare(runs, over=[key, "data", "scenario"] if key in ("data", "scenario") else [key, "method"])


def test_no_cell_averages_over_estimators():
    runs = [record("ssd", 0, 90.0), record("ssd", 0, 95.0)]
    for run, gradients in zip(runs, ("per_sample", "batch_mean"), strict=True):
        importance = {"labels": "empirical", "gradients": gradients, "batch_size": 64}
        run["semantic"] = run["semantic"] | {"method": {"_target_": "ssd", "importance": importance}}
    with pytest.raises(ValueError, match=r"method\.importance\.gradients=batch_mean and per_sample"):
        compare(runs, over=["method.importance"])
    notes = compare(runs).notes
    assert any("batch_mean, empirical labels, batches of 64" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": ["alhpa"]}, "no run has"),
        ({"columns": ["scenario.classes.x"]}, "no run has"),
        ({"by": ["method.importance"]}, "no run has"),
        ({"baseline": "sdd"}, "no run of"),
        ({"metrics": ["retain_acuracy"]}, "nearest: retain_accuracy"),
    ],
)
def test_wrong_keys_are_said(options, message):
    with pytest.raises(ValueError, match=message):
        compare(RUNS, **options)


def test_caption_names_protocol_and_code():
    notes = "\n".join(compare(RUNS, baseline="erm").notes)
    assert "class_forgetting(classes=[3])" in notes
    assert "code: 0123456" in notes
    assert "differs from erm" in notes


def on_classes(run, classes):
    run["semantic"] = run["semantic"] | {"data": {"_target_": "digits", "classes": classes, "batch_size": len(classes)}}
    return run


@pytest.mark.parametrize(
    ("of_ssd", "of_erm", "said"),
    [
        ([[0, 2]], [[0, 2, 4]], True),
        ([[0, 2], [1, 3]], [[0, 2]], True),
        ([[0, 2], [1, 3]], [[0, 2], [1, 3]], False),  # the rows themselves say which
    ],
)
def test_methods_on_different_parts_of_one_data_set_are_said(of_ssd, of_erm, said):
    runs = [on_classes(record("ssd", 0, 99.0), classes) for classes in of_ssd]
    runs += [on_classes(record("erm", 0, 95.0), classes) for classes in of_erm]
    notes = [note for note in compare(runs).notes if note.startswith("not all methods have the same data")]
    assert len(notes) == said
    if said:
        assert f"ssd on digits(classes={of_ssd[0]})" in notes[0]


def test_a_batch_size_makes_no_other_data():
    runs = [record("ssd", 0, 99.0), record("erm", 0, 95.0)]
    for run, size in zip(runs, (32, 64), strict=True):
        run["semantic"] = run["semantic"] | {"data": {"_target_": "digits", "batch_size": size}}
    assert not any("same data" in note for note in compare(runs).notes)
