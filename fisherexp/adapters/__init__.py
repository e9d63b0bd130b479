"""Reparametrized layers: adapters that train a few numbers beside frozen weights and are merged into them.

Pure torch; importing this package imports nothing else of the project.
"""

from fisherexp.adapters.adalora import AdaLoRA
from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.dora import DoRA
from fisherexp.adapters.eva import EVA
from fisherexp.adapters.factorised import Factorised
from fisherexp.adapters.fila import FILA
from fisherexp.adapters.inject import inject, merge
from fisherexp.adapters.layers import AdaptedLayer, adapted_layers
from fisherexp.adapters.lift import LIFT
from fisherexp.adapters.lora import LoRA
from fisherexp.adapters.maestro import Maestro
from fisherexp.adapters.masks import MagnitudeMask, RandomMask, forget_outside
from fisherexp.adapters.miss import Bone, MiSS
from fisherexp.adapters.peft_format import peft_format
from fisherexp.adapters.pissa import PiSSA
from fisherexp.adapters.pst import PST
from fisherexp.adapters.salt import SALT
from fisherexp.adapters.sara import SaRA
from fisherexp.adapters.soka import SoKA
from fisherexp.adapters.soma import SoMA
from fisherexp.adapters.sorsa import SORSA
from fisherexp.adapters.sst import SST, forget_resampled
from fisherexp.adapters.state import adapter_state_dict, load_adapter_state_dict
from fisherexp.adapters.svfit import SVFit
from fisherexp.adapters.targets import first_match, layer_names
from fisherexp.adapters.training import adapters, after_backward, after_step, num_trainable, penalty
