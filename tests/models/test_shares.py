"""Two processes (gloo), each with a share of the weights, train as one process does with all of them."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from two_ranks import found_by_two

from fisherexp.models.shares import blocks, cut, local, put_together

STEPS, BATCH = 4, 6


class Tied(nn.Module):
    """Blocks in a list, one in a list of its own within a block, tied and frozen weights, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList([Block(), Block(), nn.Tanh()])
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Linear(6, 6)
        self.frozen.requires_grad_(False)

    def forward(self, tokens):
        found = self.embedding(tokens).mean(1)
        for block in self.blocks:
            found = block(found)
        return self.head(self.norm(self.frozen(found)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 6)])

    def forward(self, found):
        for layer in self.inner:
            found = layer(found).tanh()
        return found


def task():
    """In eval mode: of a batch cut in two, BatchNorm's statistics are others."""
    torch.manual_seed(0)
    return Tied().eval(), torch.randint(11, (STEPS, BATCH, 3)), torch.randint(11, (STEPS, BATCH))


def train(model, tokens, targets):
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for inputs, labels in zip(tokens, targets, strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return optimizer


def one_rank(rank: int) -> dict:
    model, tokens, targets = task()
    shared = cut(model, init_device_mesh("cpu", (2,)))
    found = {
        "emptied": all(p.numel() == 0 for p in model.parameters()),
        "share": sum(local(p).numel() for p in shared.parameters()),
    }
    shared.norm.running_mean += 1  # a buffer that changes
    optimizer = train(shared, tokens[:, rank::2], targets[:, rank::2])
    found["moments"] = sum(local(state["exp_avg"]).numel() for state in optimizer.state.values())
    shared(tokens[0])  # without a backward pass: what is gathered for it must not stay
    put_together(shared, model)
    found["tied"] = model.head.weight is model.embedding.weight
    return found | {"state": model.state_dict()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return found_by_two(one_rank, tmp_path_factory.mktemp("ranks"))


@pytest.mark.end_to_end
def test_two_processes_train_as_one(found):
    model, tokens, targets = task()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.norm.running_mean += 1
    train(model, tokens, targets)
    for rank in found:
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(rank["state"][name], tensor, rtol=1e-5, atol=1e-6)
        assert rank["tied"]
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert moved == {
        name for name in start if "frozen" not in name and "running_var" not in name and "num_" not in name
    }


@pytest.mark.end_to_end
def test_a_process_holds_a_share(found):
    """Of weights and of the optimizer's moments; cut along the first axis, so to a row a tensor."""
    model = task()[0]
    whole = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(rank["share"] for rank in found) == whole
    assert sum(rank["moments"] for rank in found) == trained
    for rank in found:
        assert rank["emptied"]
        assert rank["share"] < 0.6 * whole


def test_blocks_are_the_outermost_of_lists():
    model = Tied()
    assert list(blocks(model)) == [model.blocks[0], model.blocks[1]]
    assert list(blocks(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))) == []
    assert list(blocks(nn.ModuleDict({"a": model}))) == [model.blocks[0], model.blocks[1]]
