"""Made-up chest X-ray reports: findings, some of them abnormal and scattered among normal ones, and the impression.

A report has 6 to 9 sentences in any order. One to three of ten conditions are present; each gives two sentences, one
that names it in other words (finding) and one that hints at it (sign). The rest say that other conditions are absent.
The impression has one sentence for each condition that is present, in the order of CONDITIONS, whatever the order of
the findings: which condition, and on which side or how severe. The words are those of such reports; the medicine is
invented.
"""

from dataclasses import dataclass

import numpy as np

SIDES = ("right", "left", "bilateral")
DEGREES = ("mild", "moderate", "severe")
LENGTHS = (6, 9)  # sentences of a report, from and to
PRESENT = (1, 3)  # conditions, from and to


@dataclass(frozen=True)
class Condition:
    """Sentences without their full stop; findings, signs and normal have two forms each, drawn evenly."""

    impression: str
    findings: tuple[str, str]
    signs: tuple[str, str]
    normal: tuple[str, str]


CONDITIONS = (
    Condition(
        "{side} pneumonia",
        ("{side} lung opacity", "{side} consolidation"),
        ("{side} air bronchograms", "{side} silhouette sign"),
        ("lungs clear", "no infiltrate"),
    ),
    Condition(
        "{side} effusion",
        ("{side} pleural fluid", "{side} angle blunted"),
        ("{side} meniscus", "{side} layering"),
        ("angles sharp", "no fluid"),
    ),
    Condition(
        "{side} pneumothorax",
        ("{side} pleural air", "{side} lung collapsed"),
        ("{side} markings absent", "{side} deep sulcus"),
        ("no free air", "lungs expanded"),
    ),
    Condition(
        "{degree} cardiomegaly",
        ("heart {degree} enlarged", "{degree} cardiac widening"),
        ("apex {degree} rounded", "{degree} raised ratio"),
        ("heart normal", "contours normal"),
    ),
    Condition(
        "{degree} edema",
        ("{degree} interstitial markings", "{degree} vascular congestion"),
        ("{degree} kerley lines", "{degree} peribronchial cuffing"),
        ("vessels normal", "no congestion"),
    ),
    Condition(
        "{side} nodule",
        ("{side} round density", "{side} focal lesion"),
        ("{side} spiculation", "{side} calcified focus"),
        ("no lesion", "no density"),
    ),
    Condition(
        "{side} fracture",
        ("{side} rib break", "{side} displaced rib"),
        ("{side} callus", "{side} chest swelling"),
        ("ribs intact", "bones unremarkable"),
    ),
    Condition(
        "{degree} emphysema",
        ("{degree} hyperinflation", "diaphragm {degree} flattened"),
        ("{degree} retrosternal lucency", "{degree} bullae"),
        ("volumes normal", "diaphragm domed"),
    ),
    Condition(
        "{side} atelectasis",
        ("{side} volume loss", "{side} linear bands"),
        ("{side} fissure displaced", "{side} hemidiaphragm raised"),
        ("no bands", "fissures normal"),
    ),
    Condition(
        "{degree} hernia",
        ("{degree} stomach displacement", "{degree} retrocardiac mass"),
        ("{degree} hiatus widening", "{degree} fluid level"),
        ("mediastinum normal", "no mass"),
    ),
)


def report(random: np.random.RandomState) -> tuple[list[str], list[str]]:
    """One report: its sentences, and those of its impression."""
    count = random.randint(PRESENT[0], PRESENT[1] + 1)
    order = random.permutation(len(CONDITIONS))
    findings, impression = [], []
    for number in sorted(order[:count]):
        condition, chosen = CONDITIONS[number], _attributes(random)
        findings += [_one(random, forms).format(**chosen) for forms in (condition.findings, condition.signs)]
        impression.append(condition.impression.format(**chosen))
    length = max(len(findings), random.randint(LENGTHS[0], LENGTHS[1] + 1))
    absent = order[count : count + length - len(findings)]
    findings += [_one(random, CONDITIONS[number].normal) for number in absent]
    return [findings[place] for place in random.permutation(len(findings))], impression


def words() -> list[str]:
    """All words that occur, sorted."""
    forms = [f for c in CONDITIONS for f in (c.impression, *c.findings, *c.signs, *c.normal)]
    return sorted({word for form in forms for word in form.split() if "{" not in word} | {*SIDES, *DEGREES})


def _attributes(random: np.random.RandomState) -> dict[str, str]:
    return {name: _one(random, of) for name, of in (("side", SIDES), ("degree", DEGREES))}


def _one(random: np.random.RandomState, choices: tuple[str, ...]) -> str:
    return choices[random.randint(len(choices))]
