"""Weights and choices against the authors' package and their definitions; what is chosen is like the target."""

import json

import numpy as np
import pytest
from scipy.stats import chisquare

from fisherexp.data.hashed_ngrams import counts, hashed, words
from fisherexp.data.importance import FLOOR, chosen, chosen_in_turn, classifier_scorer, cosine, log_ratio, noise, sizes
from fisherexp.data.selected_code import SelectedCode
from fisherexp.methods.statistics.dsir import Dsir
from fisherexp.problems.text_selection import CodeSelection

PROBLEM = CodeSelection(pool=60, target=8).load(0)
TWO = CodeSelection(["numbers", "xml"], pool=60, target=8).load(0)


def finished(problem, seed=0, **options):
    method = Dsir(**options)
    method.begin(problem, seed)
    while not method.done:
        method.step()
    return method


def test_scores_are_the_dot_products_of_counts_and_log_ratios():
    method = finished(PROBLEM, buckets=300, ngrams=2, smoothing=0.5)
    rows = [counts(words(text), 2, 300) for text in PROBLEM.texts("raw")]
    target = sum(counts(words(text), 2, 300) for text in PROBLEM.texts("target")) + 0.5
    p, q = target / target.sum(), sum(rows) / sum(rows).sum()
    np.testing.assert_allclose(method.scores, np.stack(rows) @ (np.log(p + FLOOR) - np.log(q + FLOOR)), rtol=1e-9)


def test_a_target_like_the_pool_gives_weights_of_one():
    there = np.array([3, 0, 5, 2])
    assert np.abs(log_ratio(4 * there, there, 0.0)).max() == 0
    assert np.abs(log_ratio(4 * there, there, 1.0)).max() > 0.01  # control: smoothed, it is another
    assert cosine(there, 2 * there) == pytest.approx(1)
    assert cosine(np.zeros(4), there) == 0


def test_noise_draws_in_proportion_to_the_weights():
    scores, draw = np.log([1.0, 2.0, 3.0, 4.0]), np.random.default_rng(0)
    eligible = np.array([True, True, True, True])
    found = [int(chosen(scores, eligible, 1, draw.gumbel(size=4))[0]) for _ in range(3000)]
    assert chisquare(np.bincount(found, minlength=4), 3000 * np.arange(1, 5) / 10).pvalue > 0.01
    assert chisquare(np.bincount(found, minlength=4), [750] * 4).pvalue < 1e-6  # control
    assert chosen(scores, eligible, 2, None).tolist() == [2, 3]
    assert chosen(scores, np.array([True, False, True, False]), 2, None).tolist() == [0, 2]


def test_too_few_long_texts_are_refused():
    with pytest.raises(ValueError, match=r"min_length=129 leaves 0 of 60 texts, fewer than the 15 of method\.share"):
        finished(PROBLEM, min_length=129)
    with pytest.raises(ValueError, match=r"method\.share=0\.001 of 60 texts is none"):
        Dsir(share=0.001).begin(PROBLEM, 0)


def test_the_chosen_texts_are_left(tmp_path):
    method = finished(PROBLEM)
    method.leave_files(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "selected.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = PROBLEM.texts("raw")
    assert [row["text"] for row in rows] == [texts[at] for at in method.solution().tolist()]
    assert (tmp_path / "weights.png").is_file()


@pytest.mark.parametrize("targets", ["mixture", "separate"])
@pytest.mark.parametrize("problem", [PROBLEM, TWO], ids=["one", "two"])
def test_weights_and_top_choices_are_those_of_the_authors_package(targets, problem, tmp_path):
    package = pytest.importorskip("data_selection")
    parts = {"raw": problem.texts("raw")}
    parts |= {f"target{number}": texts for number, texts in enumerate(problem.by_target("target"))}
    for part, texts in parts.items():
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    raw, *wanted = (str(tmp_path / f"{part}.jsonl") for part in parts)
    separate = targets == "separate"
    theirs = package.HashedNgramDSIR([raw], wanted, str(tmp_path / "cache"), num_proc=1, separate_targets=separate)
    theirs.fit_importance_estimator(num_tokens_to_fit="all")
    theirs.compute_importance_weights()
    theirs.resample(str(tmp_path / "out"), 15, str(tmp_path / "resampled"), top_k=True)
    ours = finished(problem, sampling="top", targets=targets)
    found = np.load(tmp_path / "cache" / "log_importance_weights" / "0.npy")
    np.testing.assert_allclose(ours.weighed, found.reshape(60, -1), rtol=1e-9, atol=1e-9)
    rows = [json.loads(line)["text"] for file in (tmp_path / "out").rglob("*.jsonl") for line in file.open()]
    texts = problem.texts("raw")
    assert rows == [texts[at] for at in ours.solution().tolist()]


def test_each_of_several_targets_has_texts_of_its_own():
    scores = np.array([[5.0, 9.0], [4.0, 8.0], [3.0, 1.0], [0.0, 2.0]])
    eligible = np.array([True, True, True, True])
    assert [places.tolist() for places in chosen_in_turn(scores, eligible, [1, 2], None)] == [[0], [1, 3]]
    assert sizes(15, np.array([1.0, 1.0])) == [7, 8]
    assert sizes(10, np.array([0.2, 0.8])) == [2, 8]
    method = finished(TWO, targets="separate", proportions=[0.2, 0.8], sampling="top")
    first, second = method.for_each()
    assert (len(first), len(second)) == (3, 12)
    assert not {*first} & {*second}
    assert method.solution().tolist() == sorted([*first, *second])
    assert method.scores.shape == (60, 2)
    mixed = finished(TWO, sampling="top")
    assert mixed.solution().tolist() != method.solution().tolist()
    assert "worst_kl" in TWO.evaluate(mixed.solution())
    with pytest.raises(ValueError, match=r"method\.proportions=\[0\.5\]: 1 numbers for 2 targets"):
        Dsir(targets="separate", proportions=[0.5]).begin(TWO, 0)


def test_a_classifier_tells_the_target_from_the_pool():
    texts, kinds = PROBLEM.texts("raw"), PROBLEM.instance["raw.wanted"].numpy()
    target, raw = ([hashed(words(text), 2, 10_000) for text in part] for part in (PROBLEM.texts("target"), texts))
    score = classifier_scorer(target, raw, 10_000)
    found = np.array([score(text) for text in raw])
    assert min(score(text) for text in target) > 0.5 > np.median(found)
    assert score(np.tile(raw[0], 2)) == pytest.approx(found[0])  # of shares, not of lengths
    assert found[kinds].mean() > found[~kinds].mean()
    drawn = noise("classifier", 50_000, 1, np.random.default_rng(0))
    assert (drawn > 0.1).mean() == pytest.approx(1.1**-9, abs=0.01)  # P(a Pareto draw > 1 - p) = (2 - p)⁻⁹
    assert noise("cosine", 5, 1, np.random.default_rng(0)) is None
    assert finished(PROBLEM, selection="classifier", sampling="top").scores == pytest.approx(found)


def test_the_texts_to_train_on_are_those_that_the_method_chooses():
    data = SelectedCode(pool=60, target=8).load()
    texts = PROBLEM.texts("raw")
    expected = "\n".join(texts[at] for at in finished(PROBLEM).solution().tolist())
    held_out = "\n".join(PROBLEM.texts("reference"))
    for part, text in ((data.train, expected), (data.test, held_out)):
        found = data.text(part.inputs.flatten().tolist())
        assert found == text[: len(found)]
        assert len(text) - len(found) <= 65
    assert data.class_names == sorted(set("".join([*texts, *PROBLEM.texts("target"), held_out])))  # not of the chosen


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_what_is_chosen_is_like_the_target(seed):
    problem = CodeSelection().load(seed)
    found = {
        name: problem.evaluate(finished(problem, seed, selection=name).solution())
        for name in ("dsir", "random", "cosine", "classifier")
    }
    assert found["dsir"]["kl"] < 0.7 * found["random"]["kl"]
    assert found["dsir"]["precision"] > 70
    assert max(found["random"]["precision"], found["cosine"]["precision"]) < 50


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_few_texts_are_less_like_the_target_than_the_whole_pool(seed):
    """A pitfall: long texts make weights so peaked that a small choice is of one style, and worse than no choice."""
    problem = CodeSelection().load(seed)
    found = problem.evaluate(finished(problem, seed, share=0.02).solution())
    assert found["kl"] > found["raw_kl"]
