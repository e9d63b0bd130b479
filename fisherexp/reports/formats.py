"""A table as a file: LaTeX that compiles alone, markdown, or one line per figure as CSV and parquet."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fisherexp.files import write_atomically, write_text
from fisherexp.reports.comparison import Comparison
from fisherexp.reports.table import Grid, Shown, formatted, markdown

# What LaTeX reads as commands, and signs that its plain fonts lack.
LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    # After the \\ that ends a line these are its arguments, across the line break.
    "[": "{[}",
    "*": "{*}",
}


def save(comparison: Comparison, file: Path, shown: Shown) -> None:
    """Write it in the format that the file's ending names. Raises ValueError for another ending, or without PyArrow."""
    if file.suffix not in FORMATS:
        raise ValueError(f"{file}: a table is written as {', '.join(FORMATS)}")
    FORMATS[file.suffix](comparison, file, shown)


def latex(table: Grid) -> str:
    """A document of its own, with a booktabs table; notes in small print below it."""
    heads = [" ".join(heading.split()) for heading in table.headings]
    spec = "".join("l" if i < table.labels else "r" for i in range(len(heads)))
    lines = [
        [rf"\textbf{{{escaped(cell)}}}" if (i, j) in table.bold else escaped(cell) for j, cell in enumerate(line)]
        for i, line in enumerate(table.cells)
    ]
    body = [" & ".join(line) + r" \\" for line in ([*map(escaped, heads)], *lines)]
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[T1]{fontenc}",
            r"\usepackage[utf8]{inputenc}",
            r"\usepackage[landscape,margin=1cm]{geometry}",
            r"\usepackage{booktabs}",
            r"\begin{document}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(table.title)}}}",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\footnotesize",
            *(escaped(note) + r"\\" for note in table.notes),
            r"\end{table}",
            r"\end{document}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """`text` with every sign LaTeX would read as a command."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def tidy(comparison: Comparison) -> list[dict[str, Any]]:
    """One dictionary per figure: the row's labels, the metric, n, mean, std, bounds of the 95 % confidence interval, p
    against the baseline, the published mean and standard deviation; None where there is none."""
    found = []
    for line in comparison.lines:
        for column, cell in zip(comparison.columns, line.cells, strict=True):
            if cell.spread is None:
                continue
            s, given = cell.spread, [*(cell.published or ()), None, None]
            repeated = s.n > 1
            figures = {"n": s.n, "mean": s.mean, "std": s.deviation if repeated else None}
            figures["ci95_low"] = s.mean - s.half_width if repeated else None
            figures["ci95_high"] = s.mean + s.half_width if repeated else None
            figures |= {"p": cell.p, "published_mean": given[0], "published_std": given[1]}
            labels = dict(zip(comparison.heads, line.labels, strict=True))
            found.append(labels | {"column": column.value, "metric": column.metric} | figures)
    return found


def _csv(comparison: Comparison, file: Path, shown: Shown) -> None:
    lines, text = tidy(comparison), io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(file, text.getvalue())


def _parquet(comparison: Comparison, file: Path, shown: Shown) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ValueError(f"{file}: parquet needs PyArrow: pip install 'fisherexp[parquet]'") from None
    table = pyarrow.Table.from_pylist(tidy(comparison))
    write_atomically(file, lambda temporary: pyarrow.parquet.write_table(table, temporary))


FORMATS: dict[str, Callable[[Comparison, Path, Shown], None]] = {
    ".md": lambda comparison, file, shown: write_text(file, markdown(formatted(comparison, shown)) + "\n"),
    ".tex": lambda comparison, file, shown: write_text(file, latex(formatted(comparison, shown))),
    ".csv": _csv,
    ".parquet": _parquet,
}
