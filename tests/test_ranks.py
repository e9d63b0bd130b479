"""One run on two processes (gloo, on the processor): one record, and sums over both shares of the data."""

import json
import os
from pathlib import Path

import forked
import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file

from fisherexp.config.explain import composed
from fisherexp.config.validate import validate
from fisherexp.ranks import in_order
from fisherexp.runs.store import Artefact
from fisherexp.runs.workbench import Workbench


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """(output folder, options, what was printed) of SSD in float64 on two processes."""
    output_dir = tmp_path_factory.mktemp("two")
    options = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=64-true", "model.width=4"]
    options += ["training.epochs=2", "method.importance.gradients=per_sample", f"output_dir={output_dir}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "NODE_RANK")}
    done = forked.run("run.py", *options, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return output_dir, options, done


@pytest.mark.end_to_end
def test_two_processes_make_one_run(two_processes):
    output_dir, options, done = two_processes
    (file,) = output_dir.glob("ssd/digits/*/run.json")
    record = json.loads(file.read_text())
    assert set(record["metrics"]) == {"before", "after", "oracle"}
    assert "Traceback" not in done.stderr
    assert done.stdout.count("retrained oracle") == 1

    # Each process predicted every other sample; the predictions kept are in the order of the part all the same.
    bench = Workbench(composed([*options, "trainer=cpu"]))
    kept = {str(_about(f)["parts"]["weights"]): f for f in output_dir.glob("artefacts/metrics/*.safetensors")}
    trained = {f.stem: f for f in output_dir.glob("artefacts/weights/*.safetensors")}
    both = kept.keys() & trained.keys()
    assert len(both) == 2  # the source and the oracle
    model = bench.method("source.method").model.eval().double()
    for key in both:
        model.load_state_dict({k: v.float().double() for k, v in load_file(trained[key]).items()})
        for part, logits in load_file(kept[key]).items():
            with torch.inference_mode():
                torch.testing.assert_close(model(bench.setting.parts[part].inputs), logits, rtol=1e-10, atol=1e-10)


@pytest.mark.end_to_end
def test_two_processes_get_the_numbers_of_one(two_processes, tmp_path):
    """Fisher, SSD's weights and every metric, from the same source model; some parts are odd in number."""
    output_dir, options, _ = two_processes
    bench = Workbench(composed([*options, "trainer=cpu", "trainer.precision=64-true", f"output_dir={tmp_path}"]))
    sizes = [len(bench.setting.parts[part]) for part in ("train", "forget", *bench.setting.evaluated)]
    assert any(size % 2 for size in sizes)
    (fisher_file,) = output_dir.glob("artefacts/fisher/*.safetensors")
    about = _about(fisher_file)
    assert about["count"] == 1200
    assert 600 <= about["cost"]["forward_samples"] < 660  # and a few to learn the shape of the network
    source = output_dir / "artefacts" / "weights" / f"{about['parts']['weights']}.safetensors"
    weights = Artefact(source.stem, load_file(source), {}, source, built=False)

    fisher, _ = bench.fisher(bench.method("method").importance, weights)
    _assert_equal(dict(fisher.items()), load_file(fisher_file))

    method = bench.method("method")
    method.model.load_state_dict(weights.tensors)
    method.given["fisher"] = fisher
    bench.fit(method, tmp_path / "fit", "SSD")
    (run,) = output_dir.glob("ssd/digits/*/run.json")
    _assert_equal(method.model.state_dict(), load_file(run.parent / "weights.safetensors"))
    record = json.loads(run.read_text())
    assert record["outcome"]["selected"] == method.outcome["selected"] > 0
    for name, value in bench.test(method, tmp_path / "test", "evaluating").items():
        assert value == pytest.approx(record["metrics"]["after"][name], rel=1e-10, abs=1e-12), name


def _assert_equal(one: dict, two: dict) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor.double(), two[name].double(), rtol=1e-10, atol=1e-14)


SHARES = ["trainer.accelerator=cpu", "method=erm", "scenario=none", "model=small_vit"]
SHARES += ["training.epochs=3", "trainer.gradient_clip_val=1.0", "data.train_size=200"]

DIES = """
import os, sys
from pathlib import Path

sys.path.insert(0, {repository!r})
from fisherexp.app import main
from fisherexp.callbacks.resumable import Resumable

dead, begun = Path({dead!r}), Path({begun!r})
save = Resumable._save

def begin(self, trainer, module):
    begun.write_text(str(trainer.current_epoch))

def die(self, trainer):
    save(self, trainer)
    trainer.strategy.barrier()
    if trainer.current_epoch == 1:
        if trainer.is_global_zero:
            dead.touch()
        os._exit(1)

Resumable.on_train_start = begin
if not dead.exists():
    Resumable._save = die
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.end_to_end
def test_shares_train_as_whole_weights_do_and_go_on_after_a_kill(tmp_path):
    """FSDP has the numbers of DDP, and those of a run that nothing has killed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "NODE_RANK")}
    script = tmp_path / "dies.py"
    dead, begun = tmp_path / "dead", tmp_path / "begun"
    script.write_text(DIES.format(repository=str(forked.REPOSITORY), dead=str(dead), begun=str(begun)))
    weights, figures = {}, {}
    lines = {"ddp": ["run.py"], "fsdp": ["run.py"], "killed": [str(script)]}
    for name, command in lines.items():
        folder = tmp_path / name
        options = [f"trainer={name if name == 'ddp' else 'fsdp'}", *SHARES, f"output_dir={folder}"]
        if name == "killed":
            done = forked.run(*command, *options, env=environment, timeout=300)
            assert done.returncode == 1
            assert not list(folder.glob("erm/digits/*/run.json"))
            assert len(list(folder.rglob("last.ckpt"))) == 1
            assert begun.read_text() == "0"
        done = forked.run(*command, *options, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        (file,) = folder.glob("erm/digits/*/run.json")
        weights[name], figures[name] = load_file(file.parent / "weights.safetensors"), json.loads(file.read_text())
    assert begun.read_text() == "2"
    for name in ("fsdp", "killed"):
        for key, tensor in weights["ddp"].items():
            torch.testing.assert_close(weights[name][key], tensor, rtol=1e-5, atol=1e-5)
        assert figures[name]["identity"] == figures["ddp"]["identity"]
        assert figures[name]["metrics"]["after"]["test_nll"] == pytest.approx(
            figures["ddp"]["metrics"]["after"]["test_nll"], rel=1e-5
        )


def test_a_stream_is_not_cut_into_shares():
    options = ["method=eata", "scenario=continual", "trainer=ddp", "trainer.accelerator=cpu"]
    (problem,) = validate(composed(options))
    assert str(problem) == (
        "trainer.devices=2: EATA adapts to one stream in its order, which several processes would cut into shares; "
        "nearest valid: trainer.devices=1"
    )
    assert not validate(composed([*options, "trainer.devices=1"]))


def _about(file: Path) -> dict:
    with safe_open(file, "pt") as header:
        return json.loads(header.metadata()["about"])


def test_gathered_samples_are_put_back_in_order(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    for count in (1, 2, 3, 7, 8, 9):
        whole = torch.arange(count) * 10
        assert torch.equal(in_order(torch.cat([whole[rank::3] for rank in range(3)])), whole)
