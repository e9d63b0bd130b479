"""How well tracks follow identities, where every detection is given and has a track: association alone.

With all detections right, HOTA (Luiten et al., IJCV 2021) is the root of its association accuracy at every threshold,
and IDF1 (Ristani et al., 2016) the share of detections in the best one-to-one match. TrackEval gives the same figures.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def together(identities: Tensor, tracks: Tensor) -> Tensor:
    """How many detections each identity has in each track: (identities, tracks), int64. Both inputs (n,) int64."""
    _, rows = identities.unique(return_inverse=True)
    _, columns = tracks.unique(return_inverse=True)
    counts = torch.zeros(int(rows.max()) + 1, int(columns.max()) + 1, dtype=torch.int64)
    return counts.index_put((rows, columns), torch.ones_like(rows), accumulate=True)


def association_accuracy(counts: Tensor) -> float:
    """AssA in [0, 1]: of each detection, the overlap of its identity with its track, |both| / |either|, averaged."""
    either = counts.sum(1, keepdim=True) + counts.sum(0) - counts
    return float((counts * counts / either).sum() / counts.sum())


def idf1(counts: Tensor) -> float:
    """IDF1 in [0, 1]."""
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return float(counts[rows, columns].sum() / counts.sum())


def switches(identities: Tensor, tracks: Tensor) -> int:
    """How often an identity is in another track than when it was seen before. In the order of time."""
    changed = 0
    for identity in identities.unique():
        own = tracks[identities == identity]
        changed += int((own[1:] != own[:-1]).sum())
    return changed
