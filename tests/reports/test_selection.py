"""Three ways of choosing, on made-up sweeps where they disagree."""

from fisherexp.reports.selection import LeaveOneDomainOut, Oracle, TrainingDomainValidation, grids, selected


def run(points, leave_out=None, lr=0.1, seed=0, target="t"):
    """points: per checkpoint (held-out, target held-out, target, left-out) accuracies."""
    names = ["held_out_accuracy", "target_held_out_accuracy", "target_accuracy"]
    names += ["left_out_accuracy"] if leave_out else []
    training = {f"train_{name}_accuracy": 0.0 for name in ("a", "b") if name != leave_out}
    scenario = {"target": target, "leave_out": leave_out}
    return {
        "names": {"data": "d", "model": "m", "method": "hgp"},
        "config": {"scenario": scenario},
        "semantic": {"scenario": scenario, "lr": lr, "seed": seed},
        "seed": seed,
        "outcome": {
            "domain_watch": [
                {"step": i, **training, **dict(zip(names, values, strict=False))} for i, values in enumerate(points)
            ]
        },
    }


LOW = run([(70, 50, 40, 0), (90, 55, 45, 0), (80, 60, 50, 0)], lr=0.1)
HIGH = run([(75, 40, 48, 0), (85, 90, 60, 0), (60, 58, 52, 0)], lr=1.0)


def test_training_domain_validation_takes_the_best_checkpoint_of_all_runs():
    choice = TrainingDomainValidation().choose([LOW, HIGH])
    assert (choice.run, choice.step, choice.score, choice.accuracy) == (LOW, 1, 90, 45)


def test_oracle_looks_at_last_checkpoints_only():
    choice = Oracle().choose([LOW, HIGH])
    assert (choice.run, choice.step, choice.accuracy) == (LOW, 2, 50)


def test_leave_one_domain_out_averages_over_what_was_left_out():
    others = [
        run([(0, 0, 0, 10), (0, 0, 0, 20), (0, 0, 0, 30)], "a", lr=0.1),
        run([(0, 0, 0, 30), (0, 0, 0, 20), (0, 0, 0, 10)], "b", lr=0.1),
        run([(0, 0, 0, 10), (0, 0, 0, 70), (0, 0, 0, 10)], "a", lr=1.0),
        run([(0, 0, 0, 10), (0, 0, 0, 10), (0, 0, 0, 45)], "b", lr=1.0),
    ]
    choice = LeaveOneDomainOut().choose([LOW, HIGH, *others])
    assert (choice.run, choice.step, choice.score, choice.accuracy) == (HIGH, 1, 40, 60)
    assert LeaveOneDomainOut().choose([LOW, HIGH, *others[:3]]).run is LOW  # lr=1 was not left out in turn
    assert LeaveOneDomainOut().choose([LOW, HIGH]) is None


def test_rows_name_their_selection_and_keep_targets_and_seeds_apart():
    rows = selected([LOW, HIGH, run([(1, 2, 3, 0)], seed=1), run([(4, 5, 6, 0)], target="u")])
    assert {(r["target"], r["seed"], r["selection"]): r["accuracy"] for r in rows} == {
        ("t", 0, "training-domain validation"): 45,
        ("t", 0, "oracle"): 50,
        ("t", 1, "training-domain validation"): 3,
        ("t", 1, "oracle"): 3,
        ("u", 0, "training-domain validation"): 6,
        ("u", 0, "oracle"): 6,
    }


def test_runs_on_other_samples_are_no_draws_of_one_sweep():
    """Else the easier ones would be chosen, under the name of all."""
    easy, hard, small = run([(90, 0, 80, 0)]), run([(70, 0, 30, 0)]), run([(95, 0, 20, 0)])
    for record, shift, size in ((easy, 0.0, 8), (hard, 0.5, 8), (small, 0.5, 32)):
        record["config"] = {
            "scenario": record["config"]["scenario"] | {"label_shift": shift, "holdout": 0.2},
            "data": {"batch_size": size, "seed": size, "train_images": None},
        }
    rows = [row for row in selected([easy, hard, small]) if row["selection"] == "training-domain validation"]
    assert [(row["data"], row["runs"], row["accuracy"]) for row in rows] == [
        ("d, scenario.label_shift=0.0", 1, 80),
        ("d, scenario.label_shift=0.5", 2, 20),  # batch sizes are drawn, and so may images be
    ]
    assert [grid.title for grid in grids(rows)] == [f"d, scenario.label_shift={s}, m" for s in (0.0, 0.5)]
    assert {row["data"] for row in selected([hard, small])} == {"d"}


def test_a_sweep_over_all_domains_holds_the_whole_run():
    """scenario.leave_out=t, the target: nothing further was left out."""
    whole = run([(0, 0, 40, 0), (0, 0, 50, 0)])
    whole["config"]["scenario"]["leave_out"] = "t"
    others = [run([(0, 0, 0, 30), (0, 0, 0, 10)], name) for name in ("a", "b")]
    choice = LeaveOneDomainOut().choose([whole, *others])
    assert (choice.run, choice.step, choice.accuracy) == (whole, 0, 40)


def test_table_of_targets():
    rows = selected([LOW, run([(1, 2, 3, 0)], seed=1), run([(4, 5, 6, 0)], target="u")])
    (table,) = grids(rows)
    assert table.headings[3:] == ["t\nacc. %", "u\nacc. %", "mean\nacc. %"]
    assert table.cells == [
        ["hgp", "training-domain validation", "1 to 2", "24.0 ± 29.7", "6.0", "15.0"],
        ["hgp", "oracle", "1 to 2", "26.5 ± 33.2", "6.0", "16.2"],
    ]
    (missing,) = grids([row for row in rows if row["target"] == "t" or row["selection"] != "oracle"])
    assert missing.cells[1][-2:] == ["", ""]
