"""The catalogue as one HTML file: a card per method, a field to search them; nothing is loaded from elsewhere."""

from html import escape
from importlib.resources import files

from fisherexp.handbook.card import Card


def page(wings: dict[str, list[Card]]) -> str:
    """The file's text. Without a script every card is there; the script only hides what the search leaves out."""
    links, sections = [], []
    for wing, found in wings.items():
        anchor, shown = _anchor(wing), "".join(map(_card, found))
        links.append(f'<a href="#{anchor}">{escape(wing)} <small>{len(found)}</small></a>')
        sections.append(f'<section id="{anchor}"><h2>{escape(wing)}</h2><div class="cards">{shown}</div></section>')
    pieces = {"CSS": _asset("page.css"), "JS": _asset("page.js"), "WINGS": "".join(links), "CARDS": "".join(sections)}
    filled = _asset("page.html")
    for name, value in pieces.items():
        filled = filled.replace(f"<!--{name}-->", value)
    return filled


def _card(card: Card) -> str:
    parts = [f"<h3>{escape(card.name)}</h3>", f"<p>{escape(card.sentence)}</p>"]
    if card.paper:
        paper = escape(card.paper)
        if card.arxiv:
            number = escape(card.arxiv)
            paper = paper.replace(number, f'<a href="https://arxiv.org/abs/{number}">{number}</a>')
        parts.append(f'<p class="paper">{paper}</p>')
    if card.equation:
        parts.append(f"<pre>{escape(card.equation)}</pre>")
    parts.append(f'<p class="line"><code>{escape(card.line)}</code><br><small>on {escape(card.at_home)}</small></p>')
    if card.requires:
        parts.append(f'<p class="takes">{escape("; ".join(card.requires))}</p>')
    if card.options:
        lines = "".join(
            f"<tr><td><code>{escape(o.key)}</code></td><td><code>{escape(o.default)}</code></td>"
            f"<td>{escape(o.comment)}</td></tr>"
            for o in card.options
        )
        parts.append(f"<details><summary>{len(card.options)} options</summary><table>{lines}</table></details>")
    if card.published:
        lines = "".join(
            f"<tr><td>{escape(place)}</td><td>{escape(metric)}</td><td>{' ± '.join(map(str, values))}</td></tr>"
            for place, figures in card.published.items()
            for metric, values in figures.items()
        )
        parts.append(f"<details><summary>published figures</summary><table>{lines}</table></details>")
    return f'<article class="card" id="{escape(card.name)}">{"".join(parts)}</article>'


def _anchor(wing: str) -> str:
    return "wing-" + wing.replace(" ", "-")


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
