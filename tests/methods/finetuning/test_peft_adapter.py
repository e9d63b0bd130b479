"""Adapters of the library peft as a method: exact merging, files that fit the source, refusals."""

from typing import get_args, get_type_hints

import pytest
import torch
from tiny_bert import save_tiny_bert, write_reviews

from fisherexp.catalogue import check
from fisherexp.config import fit
from fisherexp.config.explain import composed
from fisherexp.config.validate import validate
from fisherexp.methods.finetuning.peft_library import Peft, _fed
from fisherexp.runs.finished import finished

SMALL = dict.fromkeys(("hra", "gralora", "shira", "psoft", "lora_ga"), "{r: 2}")  # for layers of 16 and 12
SMALL |= dict.fromkeys(("fourierft", "waveft"), "{n_frequency: 50}")
SMALL |= {"oft": "{oft_block_size: 4}", "road": "{group_size: 4}"}
NAMES = get_args(get_type_hints(Peft)["name"])


def test_a_run_without_the_package_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(fit, "find_spec", lambda name: None)
    (problem,) = validate(composed(["method=peft_adapter"]))
    assert "this is not installed: pip install 'fisherexp[peft]'" in str(problem)
    assert check(["method=peft_adapter"]) == []  # of the composition itself nothing is wrong
    assert validate(composed(["method=lora"])) == []


def test_a_wrong_name_is_refused_with_the_nearest(monkeypatch):
    monkeypatch.setattr(fit, "find_spec", lambda name: True)
    (problem,) = validate(composed(["method=peft_adapter", "method.peft.name=fourier"]))
    assert "fourierft" in str(problem)


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")


def loaded(peft, bench, folder):
    """The source's network with what the run left for peft."""
    base = bench.classifier("loaded")
    base.load_state_dict(bench.reference("source").tensors)
    return peft.PeftModel.from_pretrained(base, str(folder / "peft")).eval()


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_merges_and_fits_the_source(name, peft, make_bench, source, tmp_path):
    options = [f"method.peft.options={SMALL[name]}"] if name in SMALL else []
    bench = make_bench("peft_adapter", f"method.peft.name={name}", *options)
    method, _ = finished(bench, tmp_path, own=True)
    method.leave_files(tmp_path)
    figures, state = method.outcome["metrics"], method.model.state_dict()
    assert state.keys() == source.keys()
    assert all(p.requires_grad for p in method.model.parameters())
    assert figures["merge_error"] < 1e-5
    assert figures["relative_change"] > 0
    body = [key for key in source if key.startswith("backbone")]
    moved = sum((state[key] - source[key]).double().square().sum() for key in body)
    whole = sum(source[key].double().square().sum() for key in body)
    assert figures["relative_change"] == pytest.approx(float((moved / whole) ** 0.5), rel=1e-5)
    with torch.no_grad():
        wanted = method.model.eval()(method.last_inputs)
        found = loaded(peft, bench, tmp_path)(method.last_inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_lora_of_peft_is_lora_of_ours(peft, make_bench, source, tmp_path):
    """As many numbers, and the same update where the factors begin alike: B = 0 takes the same first step."""
    ours, _ = finished(make_bench("lora", "method.rank=2", "method.alpha=4.0"), tmp_path / "ours", own=True)
    line = [
        "peft_adapter",
        "method.peft.name=mica",
        "method.peft.options={r: 2, lora_alpha: 4, init_lora_weights: true}",
    ]
    theirs, _ = finished(make_bench(*line), tmp_path / "theirs", own=True)
    assert theirs.outcome["metrics"]["trained_numbers"] == ours.outcome["metrics"]["trained_numbers"]
    ranks = [
        torch.linalg.matrix_rank((theirs.model.state_dict()[key] - source[key]).double(), rtol=1e-4)
        for key in source
        if key.startswith("backbone") and key.endswith("weight")
    ]
    assert [int(rank) for rank in ranks] == [2, 2]


@pytest.mark.parametrize("name", ["olora", "corda", "lora_ga"])  # the first looks at nothing: a control
def test_looking_at_batches_moves_no_statistics(name, peft, make_bench, tmp_path):
    options = ["method.peft.options={r: 2}", "model.batch_norm=true", "model.hidden=[16,12]"]
    bench = make_bench("peft_adapter", f"method.peft.name={name}", *options)
    method, _ = finished(bench, tmp_path, own=True)
    start = bench.reference("source").tensors
    buffers = {n: buffer for n, buffer in method.model.named_buffers() if "running" in n or "tracked" in n}
    assert len(buffers) == 6
    assert all(torch.equal(buffer, start[n]) for n, buffer in buffers.items())


def test_gradients_looked_at_are_those_of_the_datas_objective(peft, make_bench, tmp_path):
    """Of one output, softmax cross-entropy has none."""
    line = [
        "data=friedman",
        "source=trained",
        "model=mlp",
        "model.batch_norm=true",
        "method.peft.name=lora_ga",
        "method.peft.options={r: 2}",
    ]
    bench = make_bench("peft_adapter", *line)
    method = bench.method("method")
    method.model.load_state_dict(bench.reference("source").tensors)
    method.given["batches"] = [next(iter(bench.setting.loader("train")))]
    loss, seen = method.loss, []
    method.loss = lambda batch: seen.append(loss(batch)) or seen[-1]
    bench.announce(method)
    with torch.no_grad():
        (batch,) = method.given["batches"]
        outputs = bench.classifier("oracle")
        outputs.load_state_dict(bench.reference("source").tensors)
        expected = bench.data.objective.loss(outputs.eval()(batch.inputs), batch.targets)
    torch.testing.assert_close(seen[0].detach(), expected)
    assert expected > 0.1
    assert all(layer.training for layer in method.model.modules())


def test_sequences_come_one_by_one_without_their_padding():
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.each = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3)

        def forward(self, inputs):
            return self.each(self.tokens(inputs["input_ids"]))

    ids, mask = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    found = [*_fed(Tokens(), "each", {"input_ids": ids, "attention_mask": mask})]
    assert [one["input_ids"].tolist() for one in found] == [[[1, 2, 3]], [[4]]]
    assert [one["attention_mask"].tolist() for one in found] == [[[1, 1, 1]], [[1]]]


@pytest.mark.parametrize("name", ["corda", "vera"])
def test_a_transformer_of_texts(name, peft, make_bench, tmp_path):
    """CorDA looks at sequences one by one, as matrices."""
    model = save_tiny_bert(tmp_path / "bert")
    texts = write_reviews(tmp_path / "train.tsv", 24)
    data = ["data=text_classification", f"data.path={texts}", f"data.test_path={texts}", "data.batch_size=8"]
    line = ["model=huggingface", f"model.name={model}", *data, "source=pretrained", "method.targets='(query|value)$'"]
    options = "{r: 2}" if name == "corda" else "{r: 4}"
    bench = make_bench("peft_adapter", f"method.peft.name={name}", f"method.peft.options={options}", *line)
    method, _ = finished(bench, tmp_path / "run", own=True)
    assert len(method.layers) == 4
    assert method.outcome["metrics"]["merge_error"] < 1e-5
    assert method.outcome["metrics"]["relative_change"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["method.peft.options={rank: 4}"], r"method.peft.options.rank: LoraConfig has none of that name, nearest: r"),
        (["method.peft.options={r: 0}"], r"method.peft.name=olora: peft says: .*positive"),
        (["model=tiny_cnn", "method.targets=convolution", "method.peft.name=fourierft"], r"peft says: Target module"),
    ],
)
def test_what_peft_does_not_take_is_said_in_one_line(options, message, peft, make_bench, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        finished(make_bench("peft_adapter", *options), tmp_path, own=True)
    assert "\n" not in str(error.value)
