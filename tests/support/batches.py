"""Random batches of log-probabilities, advantages and response masks."""

import torch
from hypothesis import strategies as st


def runs_of_ones(row):
    """[0, 1, 1, 0, 1] -> [[1, 2], [4]]."""
    runs, previous = [], False
    for t, one in enumerate(row):
        if one and previous:
            runs[-1].append(t)
        elif one:
            runs.append([t])
        previous = one
    return runs


def random_batch(mask, seed, spread=0.3, dtype=torch.float64):
    """Log-probs around -2 and one advantage for each sub-sequence."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.as_tensor(mask, dtype=torch.bool)
    old = torch.randn(mask.shape, generator=generator, dtype=dtype) - 2
    log_prob = old + spread * torch.randn(mask.shape, generator=generator, dtype=dtype)
    turn = mask.clone()
    turn[:, 1:] &= ~mask[:, :-1]
    advantages = torch.randn(mask.shape, generator=generator, dtype=dtype).gather(1, turn.cumsum(1).clamp(min=1) - 1)
    return log_prob.requires_grad_(), old, advantages, mask


def random_mask(num_responses, num_tokens, seed):
    return torch.rand(num_responses, num_tokens, generator=torch.Generator().manual_seed(seed)) < 0.6


@st.composite
def masks(draw, max_responses=5, max_tokens=12):
    num_tokens = draw(st.integers(1, max_tokens))
    row = st.lists(st.booleans(), min_size=num_tokens, max_size=num_tokens)
    return draw(st.lists(row, min_size=1, max_size=max_responses))


def value_and_gradient(function, log_prob, *args, **kwargs):
    log_prob = log_prob.detach().clone().requires_grad_()
    output = function(log_prob, *args, **kwargs)
    loss = output if isinstance(output, torch.Tensor) else output.loss
    loss.backward()
    return loss.detach(), log_prob.grad


def close(actual, expected, **tolerance):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-9, "atol": 1e-9} | tolerance))
