"""Batches of retained and of forgotten samples in one fit. A batch's tag 'forgotten' tells the two apart."""

from typing import Any

from fisherexp.data.composite import InTurn, SideBySide
from fisherexp.scenarios.setting import Setting


def shuffled(setting: Setting, samples: Any, batch_size: int | None = None) -> Any:
    """Shuffled, augmented batches of a set of samples."""
    # Batch statistics of a single image are none: leave such a last batch out, another image each epoch.
    single = len(samples) > 1 and len(samples) % (batch_size or setting.data.batch_size) == 1
    return setting.loader_of(samples, shuffle=True, augment=True, batch_size=batch_size, drop_last=single)


def tagged_parts(setting: Setting) -> tuple[Any, Any]:
    """(retained, forgotten) samples, tagged as what they are."""
    return setting.parts["retain"].tagged(forgotten=False), setting.parts["forget"].tagged(forgotten=True)


def retained_with_forgotten(setting: Setting) -> SideBySide:
    """Each batch of retained samples together with one of forgotten ones; an epoch is a pass over the retained."""
    retain, forget = tagged_parts(setting)
    return SideBySide(shuffled(setting, retain), shuffled(setting, forget), leading=0)


def forgotten_with_retained(setting: Setting) -> SideBySide:
    """The same batches; an epoch is a pass over the forgotten."""
    retain, forget = tagged_parts(setting)
    return SideBySide(shuffled(setting, retain), shuffled(setting, forget), leading=1)


def forgotten_then_retained(setting: Setting, forget_batch_size: int, retain_batch_size: int) -> InTurn:
    """A pass over the forgotten samples, then one over the retained ones, in every epoch."""
    retain, forget = tagged_parts(setting)
    return InTurn(shuffled(setting, forget, forget_batch_size), shuffled(setting, retain, retain_batch_size))
