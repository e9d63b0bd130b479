"""SoMA: PiSSA with the r smallest singular components of the weight in the place of the r largest.

Yun, Chae, Lee, Ro, CVPR 2025, arXiv 2412.04077 (called SoRA in its first version and in the code). The strong, general
directions of W stay as they are. The published configurations set the minor components ("sora"); the default of the
authors' class, "sora_niter_4", yields the largest ones.
"""

from fisherexp.adapters.pissa import PiSSA


class SoMA(PiSSA):
    """Arguments as for PiSSA. Trains r (m + n) numbers; the update has rank 2 r at most."""

    @staticmethod
    def part(rank: int) -> slice:
        return slice(-rank, None)
