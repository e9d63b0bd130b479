"""A stream of domains: what is trained on, what comes, in which order, and how it is evaluated."""

import pytest
import torch

from fisherexp.config.explain import explain
from fisherexp.data.domains import DomainData
from fisherexp.data.tensors import TensorSet
from fisherexp.scenarios.domain_stream import DomainStream
from fisherexp.scenarios.setting import Segment


class Three(DomainData):
    """Three domains of 6, 7 and 8 black, gray and white images, and a variant of the last one."""

    num_classes, input_shape, title = 2, (1, 4, 4), "three"
    only_evaluated = ("variant",)

    def domains(self, seed: int) -> dict[str, TensorSet]:
        found = {}
        for number, name in enumerate(("black", "gray", "white", "variant")):
            count = 6 + number
            images = torch.full((count, 1, 4, 4), 100 * min(number, 2), dtype=torch.uint8)
            images[:, 0, 0, 0] = torch.arange(count, dtype=torch.uint8)
            found[name] = TensorSet(images, (torch.arange(count) >= count // 2).long())  # sorted by class, as files are
        return found


@pytest.fixture(scope="module")
def data():
    return Three()


def places(samples: TensorSet) -> list[int]:
    return samples.inputs[:, 0, 0, 0].tolist()


def test_others_than_the_one_trained_on_come_in_random_order(data):
    setting = DomainStream("gray").setting(data, seed=0)
    assert setting.evaluated == ("black", "white")
    assert places(setting.parts["train"]) == list(range(7))
    assert setting.segments == (Segment(True, "before"),) * 2
    for name, count in (("black", 6), ("white", 8)):
        assert sorted(places(setting.parts[name])) == list(range(count))
        assert places(setting.parts[name]) != list(range(count))
    again, other = (DomainStream("gray", seed=s).setting(data, seed=7) for s in (0, 1))
    assert places(again.parts["white"]) == places(setting.parts["white"]) != places(other.parts["white"])


@pytest.mark.parametrize("name", ["train", "test", "clean"])
def test_a_domain_that_is_called_as_another_part_is_refused(data, name, monkeypatch):
    """Else the source model would be trained on it, or it would vanish from the stream."""
    found = {name if domain == "gray" else domain: images for domain, images in data.domains(0).items()}
    monkeypatch.setattr(Three, "domains", lambda self, seed: dict(found))
    with pytest.raises(ValueError, match=f"the domain '{name}' cannot be told .* rename it"):
        DomainStream("black").setting(data, seed=0)
    assert places(DomainStream(name).setting(data, seed=0).parts["train"]) == list(range(7))


def test_the_mean_is_over_domains(data):
    """Of 6 and 4 images, the first domain is always wrong, the second one never."""
    setting = DomainStream("gray", images=4).setting(data, seed=0)
    evaluation = setting.evaluation()
    for number, (name, right) in enumerate((("black", False), ("white", True))):
        labels = setting.parts[name].targets
        assert len(labels) == 4
        evaluation.update(number, torch.nn.functional.one_hot(labels if right else 1 - labels, 2).float(), labels)
    found = evaluation.compute()
    assert (found["error/black"], found["error/white"], found["mean_error"]) == (100.0, 0.0, 50.0)
    assert setting.altered


def test_what_is_put_aside_is_evaluated_before_the_stream_and_after_each_domain(data):
    setting = DomainStream("white", holdout=0.25, reset="never").setting(data, seed=0)
    adapting, frozen = Segment(True, "never"), Segment(False)
    assert setting.evaluated == ("clean", "black", "clean", "gray", "clean")
    assert setting.segments == (frozen, adapting, frozen, adapting, frozen)
    train, aside = (set(places(setting.parts[part])) for part in ("train", "clean"))
    assert (len(train), len(aside), train | aside) == (6, 2, set(range(8)))
    many = places(DomainStream("white", holdout=0.75).setting(data, seed=0).parts["clean"])
    assert many != sorted(many)  # as files are, by class
    assert setting.parts["test"] is setting.parts["clean"]
    evaluation = setting.evaluation()
    for number, name in enumerate(setting.evaluated):  # all right until the last look at what was trained on
        labels = setting.parts[name].targets
        answers = 1 - labels if number == 4 else labels
        evaluation.update(number, torch.nn.functional.one_hot(answers, 2).float(), labels)
    found = evaluation.compute()
    assert (found["mean_error"], found["clean_error"], found["forgetting"]) == (0.0, 50.0, 100.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 0.05}, r"scenario.holdout=0.05 puts nothing aside of domain black \(6 images\)"),
        ({"holdout": 1.0}, "scenario.holdout=1.0 leaves nothing to train on"),
        ({"trained_on": "blue"}, "scenario.trained_on=blue is no domain of these data; there are black, gray, white$"),
        ({"images": 8}, "scenario.images=8, but domain gray has only 7 images"),
    ],
)
def test_what_cannot_be_is_one_line(options, message, data):
    with pytest.raises(ValueError, match=message):
        DomainStream(**options).setting(data, seed=0)


def test_data_without_domains_are_refused_before_they_are_read():
    found = explain(["method=tent", "data=digits", "scenario=domain_stream"])
    assert [problem.option for problem in found] == ["scenario"]
    assert "requires domains" in found[0].reason
    assert explain(["method=tent", "data=pacs", "scenario=domain_stream"]) == []
