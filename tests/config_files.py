"""Options of a config file, with those of the file it extends."""

from pathlib import Path

from fisherexp.config.yaml_files import read_yaml


def options_of(file: Path) -> dict:
    """Its options by name; `defaults: [base]` fills in what base has, `/data@images: digits` the option images.

    Companions (`override /training@_global_.training: adam`) are no options.
    """
    options = read_yaml(file)
    defaults = options.pop("defaults", [])
    bases = [base for base in defaults if isinstance(base, str) and base != "_self_"]
    named = {key.partition("@")[2]: entry[key] for entry in defaults if isinstance(entry, dict) for key in entry}
    options |= {name: value for name, value in named.items() if not name.startswith("_global_.")}
    extended: dict = {}
    for base in bases:
        extended |= options_of(file.with_stem(base))
    return extended | options
