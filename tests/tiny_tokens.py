"""A batch of short sequences, some of them to be forgotten, and a language model of one token's memory, in float64."""

import torch
from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.objectives.token_prediction import TokenPrediction

VOCABULARY, LENGTH = 7, 6
OBJECTIVE = TokenPrediction()
FORGET = torch.tensor([False, True, False, True, False])
# Where a row begins to count, and where it ends.
SPANS = [(2, 6), (1, 4), (0, 6), (3, 6), (4, 5)]


class TokenNet(nn.Module):
    """Logits (B, T, V) of tokens (B, T): embedding, layer, head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.layer = nn.Embedding(VOCABULARY, 4).double(), nn.Linear(4, 5).double()
        self.head = nn.Linear(5, VOCABULARY).double()

    def forward(self, tokens):
        return self.head(torch.tanh(self.layer(self.embed(tokens))))


def token_batch() -> Batch:
    stream = torch.Generator().manual_seed(3)
    tokens, following = torch.randint(1, VOCABULARY, (2, len(SPANS), LENGTH), generator=stream)
    for row, (start, stop) in zip(following, SPANS, strict=True):
        row[:start], row[stop:] = -100, -100
    return Batch(tokens, following, tags={"forgotten": FORGET})


def rows_of(model: nn.Module, batch: Batch, which: torch.Tensor) -> list[list[torch.Tensor]]:
    """-log p of every token that counts, row by row, one token at a time."""
    found = []
    for tokens, targets in zip(batch.inputs[which], batch.targets[which], strict=True):
        logits = model(tokens[None])[0]
        found.append([z.logsumexp(0) - z[y] for z, y in zip(logits, targets.tolist(), strict=True) if y >= 0])
    return found


def mean_of_tokens(rows: list[list[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([loss for row in rows for loss in row]).mean()


def gradients(loss: torch.Tensor, model: nn.Module) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]


def taught(method, seed: int):
    """The method, with another source than the model it has, and told of its problem."""
    method.objective = OBJECTIVE
    if hasattr(method, "teacher"):
        method.teacher.load_state_dict(TokenNet(seed).state_dict())
    return method
