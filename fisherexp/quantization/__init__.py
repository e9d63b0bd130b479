"""Weight matrices in a few bits, with low-rank corrections, and the statistics of inputs that they are judged by.

Pure torch (and safetensors for files); importing this package imports no experiment framework.
"""

from .activations import fake_quantize, straight_through
from .alternate import Iterate, alternate, iterates
from .block_by_block import BlockByBlock
from .cut import CutLinear, cut_to_size
from .factored import Factored, apply_factored
from .format import Format, num_bytes
from .integer import Grid, Integer
from .kept import Kept
from .layers import as_matrix, has_kernel, input_rows, is_matrix, matrix, set_matrix
from .low_rank import Root, psd_root, weighted_low_rank
from .normal_float import NormalFloat
from .packing import pack, unpack
from .sparse import Masked, Plain, TwoFour, two_of_four
from .statistics import Collector, LayerStats
from .stored import StoredWeight, load, save
