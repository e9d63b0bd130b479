"""Clients of a federation: how samples are divided among them, who takes part in a round, and their local batches."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.batch import Batch
from fisherexp.data.tensors import TensorSet
from fisherexp.seeds import derive, generator

TRIES = 100


def dirichlet_parts(labels: Tensor, parts: int, concentration: float, seed: int) -> list[Tensor]:
    """Indices of samples with these labels (N,), in disjoint parts, none of them empty: of every class the parts have
    shares drawn from Dirichlet(α, …, α) (Hsu, Qi, Brown 2019, arXiv 1909.06335). A small α: few classes in each.

    Raises ValueError where a hundred draws all leave a part empty.
    """
    numbers = np.random.default_rng(derive("clients", seed))
    for _ in range(TRIES):
        found: list[list[Tensor]] = [[] for _ in range(parts)]
        for label in labels.unique():
            members = (labels == label).nonzero().flatten().cpu()
            members = members[torch.from_numpy(numbers.permutation(len(members)))]
            shares = numbers.dirichlet(np.full(parts, concentration))
            ends = np.round(np.cumsum(shares) * len(members)).astype(int)
            for part, piece in zip(found, members.tensor_split(torch.from_numpy(ends[:-1])), strict=True):
                part.append(piece)
        joined = [torch.cat(part) for part in found]
        if all(len(part) for part in joined):
            return joined
    raise ValueError(f"clients={parts} with heterogeneity={concentration} leave a client without samples; take fewer")


class LocalBatches:
    """Batches of local steps: an epoch is a round, in which the clients that were drawn for it make `steps` each, one
    client after the other. A batch holds each sample of its client with probability min(1, batch_size / n_k), drawn
    anew for each step (Poisson sampling, which privacy is accounted for). A function of `seed`, round and step alone.

    samples: of all clients. parts: the indices of each. taking_part: clients in a round.
    """

    batch_sampler = None  # Lightning asks a loader with a sampler for this one, too

    def __init__(
        self, samples: TensorSet, parts: list[Tensor], taking_part: int, steps: int, batch_size: int, seed: int
    ) -> None:
        self.samples, self.parts, self.taking_part, self.steps = samples, parts, taking_part, steps
        self.batch_size, self.seed = batch_size, seed
        self.epoch, self.batch = 0, 0
        self._placed = False  # the position was set from outside: the next pass starts there

    def drawn(self, number: int) -> list[int]:
        """The clients of a round, in rising order."""
        order = torch.randperm(len(self.parts), generator=generator("round", self.seed, number))
        return sorted(order[: self.taking_part].tolist())

    def rate(self, client: int) -> float:
        """With which probability a sample of the client is in a batch."""
        return min(1.0, self.batch_size / len(self.parts[client]))

    def client_of(self, step: int) -> int:
        """That of a local step, counted through all rounds."""
        number, within = divmod(step, len(self))
        return self.drawn(number)[within // self.steps]

    def local_batch(self, step: int) -> Batch:
        """That of a local step, counted through all rounds; it may be empty."""
        part = self.parts[self.client_of(step)]
        coins = torch.rand(len(part), generator=generator("local batch", self.seed, step), dtype=torch.float64)
        return self.samples.subset(part[coins < self.rate(self.client_of(step))]).batch

    def __iter__(self) -> Iterator[Batch]:
        if not self._placed:
            self.batch = 0
        self._placed = False
        while self.batch < len(self):
            self.batch += 1
            yield self.local_batch(self.epoch * len(self) + self.batch - 1)

    def __len__(self) -> int:
        return self.taking_part * self.steps

    @property
    def sampler(self) -> "LocalBatches":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if not (self._placed and epoch == self.epoch):
            self.batch = 0
        self.epoch, self._placed = epoch, True

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.batch, self._placed = state["epoch"], state["batch"], True
