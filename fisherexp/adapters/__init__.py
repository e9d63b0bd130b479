"""Reparametrized layers: adapters that train a few numbers beside frozen weights and are merged into them.

Pure torch; importing this package imports nothing else of the project.
"""

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.dora import DoRA
from fisherexp.adapters.inject import inject, merge
from fisherexp.adapters.layers import AdaptedLayer, adapted_layers
from fisherexp.adapters.lora import LoRA
from fisherexp.adapters.pissa import PiSSA
from fisherexp.adapters.state import adapter_state_dict, load_adapter_state_dict
from fisherexp.adapters.targets import layer_names
from fisherexp.adapters.training import adapters, after_backward, after_step, num_trainable, penalty
