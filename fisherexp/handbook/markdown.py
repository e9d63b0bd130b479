"""The catalogue as markdown, for the documentation."""

from fisherexp.handbook.card import Card

HEADER = """\
# Methods

Made by `{command}` from what each method's two files declare; do not edit. Each line runs as it stands, on data
that come with the project. Defaults are those of `conf/method/<name>.yaml`; change one by `method.<option>=<value>`.
"""


def text(wings: dict[str, list[Card]], command: str) -> str:
    """The page. command: what makes it again."""
    parts = [HEADER.format(command=command)]
    for wing, cards in wings.items():
        parts.append(f"## {wing[0].upper()}{wing[1:]}\n")
        parts += [_card(card) for card in cards]
    return "\n".join(parts)


def _card(card: Card) -> str:
    lines = [f"### {card.name}\n", f"{_sentence(card.sentence)}\n"]
    if card.paper:
        link = f" [arXiv](https://arxiv.org/abs/{card.arxiv})" if card.arxiv else ""
        lines.append(f"{card.paper}.{link}\n")
    if card.equation:
        lines.append(f"```text\n{card.equation}\n```\n")
    lines.append(f"```sh\n{card.line}   # on {card.at_home}\n```\n")
    if card.requires:
        lines.append(f"Takes: {'; '.join(card.requires)}.\n")
    if card.options:
        lines.append("| option | default | |\n|---|---|---|")
        lines += [f"| `{o.key}` | `{_cell(o.default)}` | {_cell(o.comment)} |" for o in card.options]
        lines.append("")
    for place, figures in card.published.items():
        shown = ", ".join(f"{metric} {' ± '.join(map(str, values))}" for metric, values in figures.items())
        lines.append(f"Published, {place}: {shown}.\n")
    return "\n".join(lines)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
