"""verl's fused log-probabilities, which the GPU recipes take, against the logits that they do not hold."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.models.transformers.monkey_patch import apply_monkey_patch


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_they_and_their_gradients_are_those_of_the_logits(monkeypatch, temperature):
    monkeypatch.setattr(Qwen2ForCausalLM, "forward", Qwen2ForCausalLM.forward)  # put back when the test ends
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(**shape, num_key_value_heads=1, vocab_size=300, attn_implementation="sdpa")
    model, tokens = Qwen2ForCausalLM(config), torch.randint(0, 300, (1, 32))
    labels = tokens.roll(-1, dims=1)[..., None]
    expected = (model(tokens).logits / temperature).log_softmax(-1).gather(-1, labels)[..., 0]
    expected.sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    apply_monkey_patch(model, use_remove_padding=False, use_fused_kernels=True, fused_kernels_backend="torch")
    fused = model(tokens, temperature=temperature, return_dict=True).log_probs
    fused.sum().backward()
    torch.testing.assert_close(fused, expected)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-4)
