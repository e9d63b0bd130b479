"""Every method in conf/method keeps the contract; a new one is found here by itself."""

import pytest

from fisherexp.catalogue import entries
from fisherexp.contract import Contract

CHECKS = [name.removeprefix("check_") for name in vars(Contract) if name.startswith("check_")]


@pytest.fixture(scope="module", params=entries("method", []), ids=lambda entry: entry.name)
def contract(request, tmp_path_factory) -> Contract:
    return Contract(request.param, tmp_path_factory.mktemp(request.param.name), [])


@pytest.mark.parametrize("check", CHECKS)
def test_contract(contract, check):
    contract.checks()[check]()
