"""Writing token by token: against one token at a time, and never with a look at the labels."""

import torch
from torch import nn

from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.classifier import Classifier
from fisherexp.models.greedy import greedy_decode


class Next(nn.Module):
    """Says the token after the present one, up to 9."""

    def forward(self, tokens):
        return nn.functional.one_hot((tokens + 1).clamp_max(9), 10).float()


def test_it_goes_on_from_the_prompt_until_all_have_ended():
    tokens = torch.tensor([[1, 2, 6, 0, 0, 0, 0], [1, 2, 7, 0, 0, 0, 0]])
    labels = torch.tensor([[-100, -100, 3, 3, 3, -100, -100], [-100, -100, 3, -100, -100, -100, -100]])
    found = greedy_decode(Next(), tokens, labels, end=9)
    assert found.tolist() == [[9, 9, 7, 8, 9, 9, 9], [9, 9, 8, 9, 9, 9, 9]]
    assert greedy_decode(Next(), tokens, labels, end=0)[0, 2:].tolist() == [7, 8, 9, 9, 9]


def test_what_follows_the_prompt_is_not_read():
    torch.manual_seed(0)
    model = Classifier(CharGPT(dim=8, depth=2, heads=2, input_shape=(8,), vocabulary=12), 8, 12).eval()
    for p in model.parameters():  # the first weights say nearly the same of everything
        if p.dim() == 2:
            nn.init.normal_(p)
    tokens, other = torch.randint(1, 12, (2, 16, 8))
    other[:, :4] = tokens[:, :4]
    labels = torch.full((16, 8), -100)
    labels[:, 3] = 1
    found = greedy_decode(model, tokens, labels, end=0)
    assert torch.equal(found, greedy_decode(model, other, labels, end=0))
    assert len(found[:, 3:].unique()) > 3
    with torch.no_grad():
        for one, given in zip(found, tokens, strict=True):
            text = given[:4].tolist()
            while len(text) < 9:
                text.append(int(model(torch.tensor([text[:8]]))[0, -1].argmax()))
            assert one[3:].tolist() == text[4:]


def test_prompts_of_different_length_end_where_theirs_do():
    tokens = torch.tensor([[1, 2, 6, 0, 0, 0], [1, 3, 2, 4, 0, 0]])
    labels = torch.tensor([[-100, -100, 1, 1, -100, -100], [-100, -100, -100, 1, 1, 1]])
    together = greedy_decode(Next(), tokens, labels, end=9)
    assert together.tolist() == [[9, 9, 7, 8, 9, 9], [9, 9, 9, 5, 6, 7]]
    for row in range(2):  # each as if it were alone
        assert torch.equal(greedy_decode(Next(), tokens[[row]], labels[[row]], end=9)[0], together[row])
