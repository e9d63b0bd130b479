"""Two processes (gloo), each with a share of every domain, get the loss and gradients of one that has everything."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra.utils import get_class
from torch.nn.parallel import DistributedDataParallel
from two_ranks import found_by_two

from fisherexp.data.batch import Batch
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.recipe import Recipe
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP

pytestmark = pytest.mark.end_to_end

METHODS = ["domain_erm", "irm", "vrex", "fishr", "gradient_alignment", "hgp", "hutchinson", "hessian_exact", "cma"]
METHODS += ["coral", "mmd", "iga", "group_dro", "spectral_decoupling"]
# Samples that each rank has of each of three domains.
SHARES = [(5, 3, 4), (2, 3, 6)]
CONF = Path(__file__).parents[3] / "conf" / "method"
# Terms of about one size, from the first step on.
STRONG = Penalty(weight=3.0, before=3.0, terms="equal")


def method_of(name):
    """A method as its config file has it, on a small network in float64."""
    options = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    make = get_class(options.pop("_target_"))
    options = {key: value for key, value in options.items() if key not in ("defaults", "penalty", "training")}
    torch.manual_seed(1)
    model = Classifier(MLP([4], input_shape=(2, 8, 8)), 4, num_classes=2, one_logit=True)
    method = make(model=model, training=Recipe(), penalty=STRONG, **options).double()
    method.setting = SimpleNamespace(data=SimpleNamespace(num_classes=2))
    return method


class Objective(torch.nn.Module):
    """A method's loss as the forward pass of a module, which is what DDP takes."""

    def __init__(self, name):
        super().__init__()
        method = method_of(name)
        self.model = method.model
        self.method = [method]  # a list hides it from DDP, which would find every parameter twice

    def forward(self, images, labels, domain):
        torch.manual_seed(0)  # for the probes
        return self.method[0].penalized_risk(Batch(images, labels, tags={"domain": domain}))


def batch(ranks):
    """The samples of these ranks, domain after domain."""
    drawn = torch.Generator().manual_seed(0)
    samples = {}
    for rank, sizes in enumerate(SHARES):
        for domain, size in enumerate(sizes):
            images = torch.rand(size, 2, 8, 8, generator=drawn, dtype=torch.float64)
            labels = torch.randint(2, (size,), generator=drawn)
            samples[domain, rank] = images, labels, torch.full((size,), domain)
    chosen = [samples[domain, rank] for domain in range(3) for rank in ranks]
    return tuple(torch.cat(parts) for parts in zip(*chosen, strict=True))


def measured(objective, module, ranks):
    loss = module(*batch(ranks))
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in objective.model.named_parameters()}


def one_rank(rank):
    found = {}
    for name in METHODS:
        objective = Objective(name)
        found[name] = measured(objective, DistributedDataParallel(objective), [rank])
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return found_by_two(one_rank, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_optimize_what_one_does(found, name):
    objective = Objective(name)
    expected = measured(objective, objective, [0, 1])
    for rank in found:
        torch.testing.assert_close(rank[name], expected, rtol=1e-9, atol=1e-12)
