"""The network of a finished run."""

import torch
from torch import nn

from fisherexp.config.nodes import attribute
from fisherexp.runs.artefact import Damaged, read_tensors
from fisherexp.runs.frozen import thaw
from fisherexp.runs.state import RunFolder
from fisherexp.runs.workbench import Workbench

WEIGHTS = "weights.safetensors"


def network_of(folder: RunFolder) -> nn.Module:
    """The network with the weights that the run left, in eval mode, on the CPU. Random streams and the number of
    threads of this process stay as they are. Raises ValueError where the run has no network,
    went on changing it while it was evaluated, or left other tensors than its method builds or a damaged file."""
    cfg, _ = thaw(folder.path)
    if not attribute(cfg, "method", "uses_model", True):
        raise ValueError(f"{folder.path} has no network: its method works without one")
    if attribute(cfg, "method", "adapts_at_test", False):
        # Its layers are others while it adapts, under the same names: a network that loads may still not be the one.
        raise ValueError(f"{folder.path} changed its network from batch to batch: no single one gave its figures")
    bench = Workbench(cfg)
    bench.threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        model = bench.method("method").model
    try:
        model.load_state_dict(read_tensors(folder.path / WEIGHTS)[0])
    except Damaged as error:
        raise ValueError(f"{folder.path / WEIGHTS} is damaged: {error}") from None
    except RuntimeError as error:
        raise ValueError(f"{folder.path / WEIGHTS} does not fit the network: {' '.join(str(error).split())}") from None
    return model.eval()
