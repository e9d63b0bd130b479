"""The front of what no other beats in two figures at once."""

from collections.abc import Sequence

Point = tuple[float, float]


def undominated(points: Sequence[Point], better: str, better_x: str = "lower") -> list[Point]:
    """Points (x, y) of which no other is as good or better in x and better in y, from the best x on.

    better, better_x: 'higher' or 'lower', of y and x; x is a cost by default.
    """
    up, right = (1 if wanted == "higher" else -1 for wanted in (better, better_x))
    front: list[Point] = []
    for x, y in sorted(points, key=lambda point: (-right * point[0], -up * point[1])):
        if not front or up * y > up * front[-1][1]:
            front.append((x, y))
    return front
