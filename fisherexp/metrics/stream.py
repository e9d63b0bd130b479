"""How well a stream of known domains was predicted, as it came: sums by stretch and domain, no second pass."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from fisherexp.metrics.evaluation import Evaluation

CLEAN = "clean"
BINS = 15


class StreamMetrics(Evaluation):
    """update(stretch, logits (B, C), labels (B,)), batch by batch in the order of the stream.

    stretches: their names in that order; a name may come again. corruptions: names of the domains.
    domains: for each name of a stretch the domain of its images ('clean', or a corruption), or the number of each
    image's corruption, (n,), in the order in which they come. at_5: names of the stretches at severity 5, in a
    stream of several severities.

    compute() -> errors in percent, over all images of a kind unless said otherwise:
    mean_error: mean of the errors under each corruption, `error/<corruption>`.
    mean_error_at_5: mean of the errors of the stretches in `at_5`, where there are any.
    clean_error: mean over the stretches of clean images that follow a corruption. forgetting: the error of the last
        clean stretch minus that of the first one.
    curve/<number>_<stretch>: error of each stretch.
    ece, nll, brier: calibration error (15 equal bins of the confidence, in percent), negative log-likelihood (nats)
        and squared distance of the probabilities from the one-hot label, of corrupted images; clean_… of clean ones.
    A prediction that is not a number is an error; nll and brier are then no numbers either.
    """

    def __init__(
        self,
        stretches: tuple[str, ...],
        domains: dict[str, str | Tensor],
        corruptions: tuple[str, ...],
        at_5: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.stretches, self.corruptions, self.at_5 = stretches, corruptions, at_5
        self.headings = {"mean_error": "mean\nerror %"}
        if at_5:
            self.headings["mean_error_at_5"] = "error %\nat sev. 5"
        if CLEAN in stretches:
            self.headings["clean_error"] = "clean\nerror %"
        self.headings["ece"] = "ECE %"
        self.better = dict.fromkeys(self.headings, "lower")
        numbers = {name: i for i, name in enumerate((*corruptions, CLEAN))}
        for name, domain in domains.items():
            number = torch.tensor([numbers[domain]]) if isinstance(domain, str) else domain
            self.register_buffer(f"domain_{name}", number, persistent=False)
        # Last dimension: images, errors, negative log-likelihood, squared distance.
        self.add_state("sums", torch.zeros(len(stretches), len(numbers), 4, dtype=torch.float64), dist_reduce_fx="sum")
        # Corrupted and clean images; the last bin is confidence 1. Images, errors, confidence.
        self.add_state("bins", torch.zeros(2, BINS + 1, 3, dtype=torch.float64), dist_reduce_fx="sum")
        self.seen = [0] * len(stretches)

    def update(self, stretch: int, logits: Tensor, labels: Tensor) -> None:
        domain = self._domains(stretch, len(labels))
        log_probabilities = torch.log_softmax(logits.float(), 1)
        probabilities = log_probabilities.exp()
        confidence, predicted = probabilities.max(1)
        wrong = ((predicted != labels) | confidence.isnan()).double()
        one = torch.ones_like(wrong)
        likelihood = F.nll_loss(log_probabilities, labels, reduction="none").double()
        distance = (probabilities - F.one_hot(labels, logits.shape[1])).square().sum(1).double()
        self.sums[stretch].index_add_(0, domain, torch.stack([one, wrong, likelihood, distance], 1))
        place = (confidence.nan_to_num() * BINS).long() + (BINS + 1) * (domain == len(self.corruptions))
        figures = torch.stack([one, wrong, confidence.double()], 1)
        self.bins.view(-1, 3).index_add_(0, place, figures)

    def compute(self) -> dict[str, float]:
        sums = self.sums.cpu()
        errors = 100 * sums[..., 1].sum(1) / sums[..., 0].sum(1)
        found: dict[str, float] = {}
        by_domain = sums.sum(0)
        for number, name in enumerate(self.corruptions):
            found[f"error/{name}"] = (100 * by_domain[number, 1] / by_domain[number, 0]).item()
        found = {"mean_error": sum(found.values()) / len(self.corruptions)} | found
        if self.at_5:
            found["mean_error_at_5"] = errors[[name in self.at_5 for name in self.stretches]].mean().item()
        clean = [i for i, name in enumerate(self.stretches) if name == CLEAN]
        if clean:
            found["clean_error"] = errors[[i for i in clean if i > 0]].mean().item()
        if len(clean) > 1:
            found["forgetting"] = (errors[clean[-1]] - errors[clean[0]]).item()
        for kind, prefix in enumerate(("", "clean_") if clean else ("",)):
            total = by_domain[-1] if kind else by_domain[:-1].sum(0)
            found[f"{prefix}ece"] = 100 * calibration_error(self.bins[kind])
            found[f"{prefix}nll"], found[f"{prefix}brier"] = (total[2:] / total[0]).tolist()
        curve = zip(self.stretches, errors.tolist(), strict=True)
        return found | {f"curve/{i:03d}_{name}": error for i, (name, error) in enumerate(curve)}

    def reset(self) -> None:
        super().reset()
        self.seen = [0] * len(self.stretches)

    def _domains(self, stretch: int, count: int) -> Tensor:
        """The domain of each of the next images of a stretch, (count,)."""
        numbers = getattr(self, f"domain_{self.stretches[stretch]}")
        if len(numbers) == 1:
            return numbers.expand(count)
        # Several processes take turns image by image: see Loader.
        parallel = dist.is_available() and dist.is_initialized()
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
        first = self.seen[stretch]
        self.seen[stretch] += count
        return numbers[(first * world_size + rank) :: world_size][:count]


def calibration_error(bins: Tensor) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) of bins (n, 3): images, errors and confidence in each."""
    count, wrong, confidence = bins.cpu().unbind(1)
    return ((count - wrong - confidence).abs().sum() / count.sum()).item()
