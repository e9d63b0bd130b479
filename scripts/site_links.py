"""For `make docs`: the site holds docs/ alone, so a link to any other file becomes its text."""

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\((\.\.?/[^)#\s]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **others: Any) -> str:
    """Called by mkdocs for each page, with its text as written."""
    docs, folder = Path(config["docs_dir"]).resolve(), Path(page.file.abs_src_path).parent

    def kept(link: re.Match) -> str:
        inside = (folder / link[2]).resolve().is_relative_to(docs)
        return link[0] if inside else link[1]

    return LINK.sub(kept, markdown)
