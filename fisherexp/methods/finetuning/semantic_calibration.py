"""Features of a frozen encoder, turned and shifted class by class onto those of the encoder that is fine-tuned.

    R = argmin over rotations ‖(P - mean P) R - (D - mean D)‖,   z_i ← (P_i - mean P) R + s_c,   i of class c

s_c brings the mean of the class onto that of D. All rows have length one at first, and one length at the end.
Wei, Hu, Yang, Huang et al., ICCV 2023,
arXiv 2308.12058.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def rotation(features: Tensor, onto: Tensor) -> Tensor:
    """The rotation R (d, d), det R = 1, that brings the centred rows of features (n, d) nearest to those of `onto`:
    orthogonal Procrustes by the singular vectors of the cross-covariance (Kabsch)."""
    left, _, right = torch.linalg.svd((features - features.mean(0)).mT @ (onto - onto.mean(0)))
    flip = torch.ones(len(left), dtype=left.dtype, device=left.device)
    flip[-1] = torch.linalg.det(left @ right).sign()
    return (left * flip) @ right


def shifted(features: Tensor, onto: Tensor, labels: Tensor, head: Tensor) -> Tensor:
    """Features (n, d), those of each class moved by one vector: from their mean to the mean of that class's rows of
    `onto`, which are weighted by a softmax of their products with the class's row of `head` (C, d), of length one."""
    found = features.clone()
    for label in labels.unique():
        chosen = labels == label
        weights = (onto[chosen] @ F.normalize(head[label], dim=0)).softmax(0)
        found[chosen] += weights @ onto[chosen] - features[chosen].mean(0)
    return found


@torch.no_grad()
def calibrated(
    features: Tensor, onto: Tensor, labels: Tensor, head: Tensor, norm: Tensor | float, rotate: bool = True
) -> Tensor:
    """Semantic calibration: frozen features (n, d) of samples whose features now are `onto` (n, d), as rows of length
    `norm`. labels (n,); head: weight (C, d) of the linear classifier. Without `rotate` they are only shifted."""
    features, onto = F.normalize(features), F.normalize(onto)
    if rotate:
        features = (features - features.mean(0)) @ rotation(features, onto)
    return norm * F.normalize(shifted(features, onto, labels, head))
