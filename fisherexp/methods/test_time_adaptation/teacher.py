"""A teacher that follows its student slowly, and the student's loss."""

import torch
from torch import Tensor, nn


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """-Σ_c t_c log s_c (B,) of softmaxes of logits (B, C); the teacher is taken for constant."""
    return -(teacher.detach().softmax(1) * student.log_softmax(1)).sum(1)


def reverse_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """-Σ_c s_c log t_c (B,) of softmaxes of logits (B, C); the teacher is taken for constant."""
    return -(student.softmax(1) * teacher.detach().log_softmax(1)).sum(1)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher ← momentum · teacher + (1 - momentum) · student, for parameters that may change."""
    for mine, other in zip(teacher.parameters(), student.parameters(), strict=True):
        if mine.requires_grad:
            mine.lerp_(other, 1 - momentum)
