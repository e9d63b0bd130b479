"""How close together the directions of each class are, and the cosines between their mean directions."""

from pathlib import Path

from torch import Tensor

from fisherexp.figures import BLUE, canvas, save_both

NAMED = 40  # classes, beyond which names would lie on one another


def draw(means: Tensor, concentrations: Tensor, names: list[str], stem: Path) -> None:
    """means: (C, p) unit vectors. concentrations: κ (C,)."""
    figure, (bars, cosines) = canvas(1, 2, (9.5, 4.2))
    places = range(len(names))
    bars.barh(places, concentrations.tolist(), color=BLUE)
    bars.invert_yaxis()
    bars.set(xlabel="concentration κ", ylabel="class")
    image = cosines.imshow((means @ means.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=cosines, label="cosine of mean directions")
    if len(names) <= NAMED:
        bars.set_yticks(places, names)
        cosines.set_xticks(places, names, rotation=90)
        cosines.set_yticks(places, names)
    save_both(figure, stem)
