"""Streamed layers of BERT in transformers, with padding and without, encoders and decoders."""

import copy

import pytest
import torch

pytest.importorskip("transformers")

from fisherexp.models.streaming import factorize, plain, stream, streamable


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("decoder", [True, False])
def test_a_streamed_bert_is_the_plain_one(decoder, padded):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    config = BertConfig(vocab_size=30, is_decoder=decoder, use_cache=False, **sizes)
    model = BertModel(config, add_pooling_layer=False).eval()
    ranks = {name: 5 for kinds in streamable(model).values() for names in kinds for name in names}
    low, streamed = copy.deepcopy(model), copy.deepcopy(model)
    plain(low, factorize(model, ranks))
    stream(streamed, factorize(model, ranks), tile=7)
    ids, mask = torch.randint(30, (3, 11)), torch.ones(3, 11, dtype=torch.int64)
    mask[1, 6:] = 0
    mask = mask if padded else None
    with torch.no_grad():
        found, expected, dense = (
            m(input_ids=ids, attention_mask=mask).last_hidden_state for m in (streamed, low, model)
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, dense, atol=1e-2)
