"""Every method in conf/method keeps the contract; a new one is found here by itself."""

import functools
from importlib.util import find_spec
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fisherexp.catalogue import Entry, entries
from fisherexp.config.companions import companions
from fisherexp.config.explain import explain
from fisherexp.contract.method import Contract
from fisherexp.figures import Drawing

# Data that need no download.
EMBEDDED = {
    "digits",
    "digits_even",
    "digits_parity",
    "colored_digits",
    "few_people",
    "reports",
    "friedman",
    "wine",
    "diabetes",
    "breast_cancer",
    "transport",
    "bridge_swiss_roll",
    "density",
    "repeated_blocks",
    "stories",
    "tracks",
    "reusable_holdout",
    "contaminated_gaussian",
    "contaminated_mixture",
    "contaminated_digits",
    "simulated_ratings",
    "code_selection",
    "sparse_regression",
    "square_regression",
    "directions",
    "corrupted_low_rank",
    "white_dwarf_binaries",
    "bilevel_tv",
    "chain",
    "far_chain",
    "offline_design",
    "band_signal",
    "mixed_symmetry",
}

CHECKS = [name.removeprefix("check_") for name in vars(Contract) if name.startswith("check_")]


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory) -> Path:
    """Reference models: many methods start from the same source."""
    return tmp_path_factory.mktemp("artefacts")


@pytest.fixture(scope="class")
def contract(request, tmp_path_factory, artefacts) -> Contract:
    """The contract of the class's method; its checks share a first run."""
    entry = request.cls.entry
    return Contract(entry, tmp_path_factory.mktemp(entry.name), [], artefacts)


def save_as(figure: Drawing, formats: tuple[str, ...], file: Path, **options: object) -> None:
    """As Drawing.savefig, but that files of other formats stay empty."""
    if options["format"] in formats:
        Figure.savefig(figure, file, **options)
    else:
        file.touch()


class OfOneMethod:
    entry: Entry

    @pytest.mark.parametrize("check", CHECKS)
    def test_contract(self, contract, check, monkeypatch):
        # Of a picture in two formats the first run draws one; what repeats compares weights and metrics.
        drawn = () if check == "repeats_and_resumes_exactly" else ("png",)
        monkeypatch.setattr(Drawing, "savefig", functools.partialmethod(save_as, drawn))
        contract.checks()[check]()

    def test_its_own_line_is_valid_and_needs_no_download(self):
        """As users write it, which composes to what the contract's runs begin with."""
        assert explain([f"method={self.entry.name}"]) == []
        assert companions(self.entry.file).get("data", "digits") in EMBEDDED


# A class a method: several workers divide the methods among them and keep the checks of one together.
for entry in entries("method", []):
    name = f"Test_{entry.name}"
    package = entry.attributes.get("package")
    lacks = pytest.mark.skipif(bool(package) and find_spec(package) is None, reason=f"{package} is not installed")
    globals()[name] = lacks(type(name, (OfOneMethod,), {"entry": entry}))
