"""LoRA held by a Fisher: the penalty is on the update, however it is written."""

import torch

from fisherexp import adapters
from fisherexp.methods.continual_learning.sequential_lora import attach


def test_at_zero_strength_it_is_lora_bit_for_bit(same_as_sequential_lora):
    assert same_as_sequential_lora("lora_ewc", "method.lambda_=0")
    assert not same_as_sequential_lora("lora_ewc", "method.lambda_=100")


def test_the_penalty_on_updates_is_that_on_merged_weights(make_bench, tmp_path):
    bench = make_bench("lora_ewc")
    method = bench.method("method")
    bench.fit(method, tmp_path, "fit")
    attach(method.model, 2, 2.0)
    with torch.no_grad():
        for p in method.model.parameters():
            if p.requires_grad:
                p.normal_()
    anchor = method.memory["anchors"][0]
    # Around the weights that the adapters sit on.
    anchor["anchor"] = {
        name: p.detach().clone() for name, p in method.model.named_parameters() if ".adapters." not in name
    }
    adapted = method.penalty()
    adapters.merge(method.model)
    torch.testing.assert_close(method.penalty(), adapted)
