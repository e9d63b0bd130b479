"""A batch of every training domain in every step. A batch's tag 'domain' is the number of each sample's domain."""

import torch
from torch import Tensor

from fisherexp.data.composite import SideBySide
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive


def of_every_domain(setting: Setting) -> SideBySide:
    """Batches of `data.batch_size` samples of each domain; a smaller domain is in every batch as a whole.

    An epoch is a pass over the largest. Raises ValueError for a domain of fewer samples than ranks: some would never
    see it.
    """
    samples, size = setting.parts["domains"], setting.data.batch_size
    domain_of = samples.tags["domain"]
    loaders = []
    for number in range(int(domain_of.max()) + 1):
        domain = samples.subset((domain_of == number).nonzero().flatten())
        if len(domain) < setting.world_size:
            raise ValueError(
                f"training domain {number} has {len(domain)} samples for {setting.world_size} ranks; "
                f"nearest valid: trainer.devices={len(domain)}"
            )
        whole = len(domain) <= size * setting.world_size
        # A last batch that is smaller than the others would be compared with full ones of other domains.
        loaders.append(
            setting.loader_of(
                domain,
                shuffle=not whole,
                augment=True,
                batch_size=size,
                drop_last=not whole,
                seed=derive("batches", setting.seed, number),
            )
        )
    return SideBySide(*loaders)


def by_domain(values: Tensor, domain: Tensor) -> list[Tensor]:
    """Split the rows of `values` (B, …) by their domains (B,), which follow each other."""
    return list(values.split(torch.bincount(domain).tolist()))
