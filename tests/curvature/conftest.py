"""What tests of curvature share: double precision, and the compiled kernel."""

import importlib.util
import shutil

import pytest
import torch

from fisherexp.curvature import kernels


@pytest.fixture
def in_double_precision():
    """Networks, batches and references of float64, from one random state."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory):
    """One for all modules of a process: it cannot load the library from two places."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def compiled(library_folder):
    """The user's library if there is one, else one compiled for this run."""
    environment = pytest.MonkeyPatch()
    if not kernels.location().exists():
        if not (shutil.which("c++") and (shutil.which("ninja") or importlib.util.find_spec("ninja"))):
            pytest.skip("the kernel has not been compiled, and there is no C++ compiler with ninja to do it")
        environment.setenv("XDG_CACHE_HOME", str(library_folder))
    kernels._loaded.cache_clear()
    function, path = kernels.kernel(True, torch.device("cpu"))
    assert path == "compiled"
    yield function
    environment.undo()
