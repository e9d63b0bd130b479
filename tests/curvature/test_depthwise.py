"""Per-sample gradients of depthwise convolutions: each way of forming them against autograd."""

import pytest
import torch
from torch.nn import functional as F

from fisherexp.curvature.rules import depthwise

CASES = {  # spatial size of the padded input, kernel, stride, dilation
    "small": ((6, 5), (3, 2), (1, 2), (1, 1)),
    "large": ((11, 9), (5, 7), (2, 1), (1, 1)),
    "dilated": ((9, 12), (3, 4), (3, 1), (2, 3)),
    "one axis": ((13,), (4,), (2,), (1,)),
    "three axes": ((4, 5, 6), (2, 3, 2), (1, 2, 1), (2, 1, 1)),
}
WAYS = {
    "by_offsets": CASES,
    "by_convolution": ("small", "large", "dilated"),
    "by_weight_gradient": ("small",),
    "depthwise_gradients": CASES,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("way", "case"), [(way, case) for way, cases in WAYS.items() for case in cases])
def test_against_autograd(way, case, dtype):
    torch.manual_seed(0)
    size, kernel, stride, dilation = CASES[case]
    x = torch.randn(3, 5, *size).double()
    weight = torch.randn(5, 1, *kernel).double().requires_grad_()
    convolution = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(size)]
    y = convolution(x, weight, None, stride, 0, dilation, 5)
    g = torch.randn_like(y)
    parts = zip(y.split(1), g.split(1), strict=True)
    each = [torch.autograd.grad(result, weight, gradient, retain_graph=True)[0] for result, gradient in parts]
    found = getattr(depthwise, way)(x.to(dtype), g.to(dtype), kernel, stride, dilation)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found.double(), torch.stack(each).squeeze(2), **tolerance)


@pytest.mark.parametrize(("case", "way"), [("small", "by_weight_gradient"), ("large", "by_convolution")])
def test_the_fast_way_is_taken(case, way, monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("without oneDNN there is one way")
    taken, fast = [], getattr(depthwise, way)
    monkeypatch.setattr(depthwise, way, lambda *a: taken.append(way) or fast(*a))
    size, kernel, stride, dilation = CASES[case]
    x = torch.randn(2, 3, *size)
    g = F.conv2d(x, torch.randn(3, 1, *kernel), None, stride, 0, dilation, 3)
    depthwise.depthwise_gradients(x, g, kernel, stride, dilation)
    assert taken == [way]
