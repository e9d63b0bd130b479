"""experiment=domainbed_pacs needs a GPU and PACS: its first batches, on small generated images in that layout."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fisherexp.config.explain import composed
from fisherexp.data.domain_folder import PACS
from fisherexp.experiment import run_experiment

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    for shade, domain in enumerate(DOMAINS):
        for hue, kind in enumerate(PACS.class_names):
            (folder / domain / kind).mkdir(parents=True)
            for i in range(5):
                color = (40 * shade, 30 * hue, 50 * i)
                Image.new("RGB", (40, 40), color).save(folder / domain / kind / f"{i}.png")
    return folder


@pytest.mark.parametrize("method", ["hgp", "hessian_exact"])
def test_first_batch_runs(folder, tmp_path, method):
    small = ["data.image_size=32", "data.workers=0", "data.batch_size=4", "model.pretrained=false", "trainer=debug"]
    overrides = ["experiment=domainbed_pacs", f"method={method}", f"data.path={folder}", *small, "progress=off"]
    config = composed([*overrides, "scenario.target=sketch", f"output_dir={tmp_path}"])
    weights = {"hgp": (1e-4, 5e-3), "hessian_exact": (1e-3, 5e-3)}
    assert (config.method.alpha, config.method.beta) == weights[method]
    assert (config.training.lr, config.training.weight_decay) == (5e-5, 0.0)
    assert config.model.weights == "IMAGENET1K_V1"
    record = run_experiment(config, tmp_path / "run", overrides)
    assert record["trial"]
    (point,) = record["outcome"]["domain_watch"]
    assert {f"train_{name}_accuracy" for name in DOMAINS[:3]} < set(point)
    left = load_file(tmp_path / "run" / "weights.safetensors")
    assert left["head.weight"].shape == (7, 2048)
    assert all(tensor.isfinite().all() for tensor in left.values())
    # BatchNorm is frozen: no running mean has moved.
    means = [tensor for name, tensor in left.items() if name.endswith("running_mean")]
    assert len(means) == 53
    assert not torch.cat(means).any()
