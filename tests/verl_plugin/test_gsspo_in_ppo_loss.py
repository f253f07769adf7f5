"""GSsPO through verl's `ppo_loss`, which adds the KL and entropy terms."""

import pytest
import torch
from support.verl_losses import actor_config
from verl.utils import tensordict_utils as tu
from verl.utils.metric import Metric
from verl.workers.config import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss


def ppo_loss_inputs(mask):
    """What verl's engine hands to `ppo_loss`: jagged tensors, prompt and response joined in the model's output."""
    generator = torch.Generator().manual_seed(11)
    responses = [row[: row.nonzero().max() + 1] for row in mask]
    prompt_lengths = [2, 3, 1]
    jagged = lambda rows: torch.nested.as_nested_tensor(rows, layout=torch.jagged)  # noqa: E731
    random = lambda lengths: jagged([torch.randn(n, generator=generator) - 2 for n in lengths])  # noqa: E731
    lengths = [len(row) for row in responses]
    sequence_lengths = [p + r for p, r in zip(prompt_lengths, lengths, strict=True)]
    model_output = {"log_probs": random(sequence_lengths).requires_grad_(), "entropy": random(sequence_lengths)}
    advantages = [a * torch.ones(n) for a, n in zip([1.0, -2.0, 0.5], lengths, strict=True)]
    data = tu.get_tensordict(
        {
            "prompts": jagged([torch.ones(n, dtype=torch.int64) for n in prompt_lengths]),
            "responses": jagged([torch.ones(n, dtype=torch.int64) for n in lengths]),
            "response_mask": jagged(responses),
            "old_log_probs": random(lengths),
            "ref_log_prob": random(lengths),
            "advantages": jagged(advantages),
        },
        non_tensor_dict={"dp_size": 1, "batch_num_tokens": int(mask.sum()), "global_batch_size": 3},
    )
    return model_output, data


def run_ppo_loss(mask, loss_mode, **overrides):
    config = actor_config(policy_loss=PolicyLossConfig(loss_mode=loss_mode), **overrides)
    loss, metrics = ppo_loss(config, *ppo_loss_inputs(mask))
    return loss, {name: m.aggregate() if isinstance(m, Metric) else m for name, m in metrics.items()}


@pytest.mark.parametrize("loss_agg_mode", ["token-mean", "seq-mean-token-sum"])
def test_kl_and_entropy_terms_of_ppo_loss_are_those_under_gspo(loss_agg_mode):
    mask = torch.tensor([[1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0, 0], [0, 1, 1, 0, 1, 0]])
    terms = {"use_kl_loss": True, "kl_loss_coef": 0.3, "entropy_coeff": 0.2, "loss_agg_mode": loss_agg_mode}
    (gsspo, gsspo_metrics), (gspo, gspo_metrics) = (run_ppo_loss(mask, n, **terms) for n in ("gsspo", "gspo"))
    for name in ("actor/entropy_loss", "kl_loss"):
        assert gsspo_metrics[name] == gspo_metrics[name] != 0
    added = [loss.item() - metrics["actor/pg_loss"] for loss, metrics in ((gsspo, gsspo_metrics), (gspo, gspo_metrics))]
    assert added[0] == pytest.approx(added[1], rel=1e-4)
    assert added[0] == pytest.approx(0.3 * gspo_metrics["kl_loss"] - 0.2 * gspo_metrics["actor/entropy_loss"], rel=1e-4)
    assert gsspo_metrics["actor/pg_loss"] != pytest.approx(gspo_metrics["actor/pg_loss"], rel=1e-2)
    assert gsspo_metrics["actor/subsequences_per_response"] == 2.0


def test_ppo_loss_reaches_the_gradient_of_the_policys_tokens_only():
    mask = torch.tensor([[1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0, 0], [0, 1, 1, 0, 1, 0]])
    model_output, data = ppo_loss_inputs(mask)
    config = actor_config(policy_loss=PolicyLossConfig(loss_mode="gsspo"), clip_ratio_low=1.0, clip_ratio_high=9e9)
    ppo_loss(config, model_output, data)[0].backward()
    # Position t of the model's output predicts token t + 1: prompts of 2, 3 and 1 tokens, responses of 6, 3 and 5.
    touched = [row.nonzero()[:, 0].tolist() for row in model_output["log_probs"].grad.unbind()]
    assert touched == [[1, 2, 5, 6], [2, 4], [1, 2, 4]]
