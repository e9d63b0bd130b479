"""SOAP, Shampoo, Muon and Sophia as the library pytorch-optimizer has them (kozistr/pytorch_optimizer), by their names.

soap: Adam in the eigenbasis of Shampoo's preconditioners (Vyas et al., arXiv 2409.11321). shampoo: Kronecker factors of
gradients' second moments, to the power -1/2k (Gupta, Koren, Singer, ICML 2018, arXiv 1802.09568). muon: momentum of
hidden matrices, orthogonalized by Newton–Schulz steps, AdamW for all else (Jordan et al. 2024). sophiah: momentum over
a clipped diagonal Hessian by Hutchinson's estimate every few steps (Liu et al., ICLR 2024, arXiv 2305.14342).
"""

import inspect
import warnings
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fisherexp.config.problem import nearest
from fisherexp.methods.optimizers.passes import PassByPass

HEAD = "head."  # how names of the head's parameters begin, see Classifier
SOPHIA = "sophiah"  # which takes products with the Hessian
OURS = ("self", "params", "lr", "weight_decay", "kwargs")


def library() -> ModuleType:
    """pytorch_optimizer. Raises ModuleNotFoundError, in one line, where it is not installed."""
    try:
        import pytorch_optimizer
    except ImportError:
        line = "method=library_optimizer needs pytorch-optimizer: pip install 'fisherexp[pytorch_optimizer]'"
        raise ModuleNotFoundError(line) from None
    return pytorch_optimizer


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Trainable parameters of two dimensions and more, without those of embeddings and of the head."""
    embedded = {id(p) for layer in model.modules() if isinstance(layer, nn.Embedding) for p in layer.parameters()}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1]
    return [p for name, p in named if not name.startswith(HEAD) and id(p) not in embedded]


class LibraryOptimizer(PassByPass):
    """algorithm: which. options: others than the library's defaults, as its class has them: {"betas": [0.9, 0.95]}.
    Further options: see PassByPass; of Muon, lr is that of hidden matrices alone.

    Raises ModuleNotFoundError without pytorch-optimizer, ValueError for options it does not know or take.
    """

    name = "library_optimizer"
    named_by = "algorithm"
    paper = "kozistr, the library pytorch_optimizer; see the file for each algorithm's"
    package = "pytorch_optimizer"
    search = {"lr": "tag(log, interval(0.0003, 0.1))"}
    counts_with = {"options": {"options": {"eps": 1e-3}}}
    weighs_samples = True  # the loss is ERM's

    def __init__(
        self,
        model: nn.Module,
        algorithm: Literal["soap", "shampoo", "muon", "sophiah"],
        options: dict[str, Any] | None,
        **loop: Any,
    ) -> None:
        self.algorithm, self.options = algorithm, dict(options or {})
        found = library().load_optimizer(algorithm)
        known = [name for name in inspect.signature(found.__init__).parameters if name not in OURS]
        for option in self.options:
            if option not in known:
                near = nearest(option, known)
                raise ValueError(f"method.options.{option}: {found.__name__} has none of that name, nearest: {near}")
        super().__init__(model, **loop)

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        make, given = library().load_optimizer(self.algorithm), {"lr": self.lr, "weight_decay": self.weight_decay}
        groups: list[Any] = parameters
        if self.algorithm == "muon":
            hidden = hidden_matrices(self.model)
            chosen = {id(p) for p in hidden}
            rest = [p for p in parameters if id(p) not in chosen]
            groups = [{"params": hidden, "use_muon": True}, {"params": rest, "use_muon": False}]
            groups = [group for group in groups if group["params"]]
            given["adamw_wd"] = self.weight_decay
        try:
            return make(groups, **given | self.options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"method.options: {make.__name__} says: {str(error).splitlines()[0]}") from None

    @property
    def hessian_asked(self) -> bool:
        """Whether this step takes products with the Hessian."""
        if self.algorithm != SOPHIA:
            return False
        return self.global_step % self.optimizers(use_pl_optimizer=False).update_period == 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if not self.hessian_asked:
            return super().training_step(batch, batch_idx)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
            return super().training_step(batch, batch_idx)

    def backward(self, loss: Tensor) -> None:
        """With a graph of the gradients at those steps at which Sophia asks for Hessian products."""
        with warnings.catch_warnings():  # of a cycle, which zero_grad breaks
            warnings.filterwarnings("ignore", "Using backward.. with create_graph")
            loss.backward(create_graph=self.hessian_asked)
