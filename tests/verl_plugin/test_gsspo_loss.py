"""GSsPO in verl's registry: equal to verl's own losses at its limits, and the metrics it reports."""

import numpy as np
import pytest
import torch
from support.batches import random_batch, random_mask
from support.verl_losses import actor_config, run_loss
from verl.utils.metric import Metric, reduce_metrics

from workflow_r1.turn_metrics import turn_means
from workflow_r1.verl_plugin.gsspo_loss import SHARE, TURN_SUMS, GSsPOLossConfig


@pytest.mark.parametrize("global_batch_info", [{}, {"dp_size": 2, "global_batch_size": 32, "batch_num_tokens": 999}])
@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.003, 0.004)])
def test_one_subsequence_a_response_equals_gspo_in_value_and_gradient(global_batch_info, clip):
    lengths, offsets = torch.tensor([[12], [1], [7], [0], [5]]), torch.tensor([[0], [3], [2], [0], [7]])
    position = torch.arange(12)
    mask = (position >= offsets) & (position < offsets + lengths)
    batch = random_batch(mask, seed=1)
    for weighting in ("uniform", "token"):
        config = actor_config(
            global_batch_info,
            clip_ratio_low=clip[0],
            clip_ratio_high=clip[1],
            policy_loss=GSsPOLossConfig(subsequence_weighting=weighting),
        )
        for weights in (None, torch.rand(mask.shape, dtype=torch.float64)):
            gsspo, gspo = (run_loss(name, batch, config, rollout_is_weights=weights) for name in ("gsspo", "gspo"))
            # gspo's token mean divides by (length + 1e-8)
            torch.testing.assert_close(gsspo[0], gspo[0], rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(gsspo[1], gspo[1], rtol=1e-7, atol=1e-9)
            assert gsspo[2]["actor/ppo_kl"] == pytest.approx(gspo[2]["actor/ppo_kl"])


def test_ratios_beyond_the_bound_are_treated_as_gspo_treats_them():
    _, old, _, mask = random_batch(torch.ones(2, 4), seed=0)
    batch = (old + torch.tensor([[12.0], [-30.0]]), old, torch.tensor([[-1.0], [1.0]]).double().expand(2, 4), mask)
    # clip_ratio_c is the dual clip, which GSPO does not have: out of the way.
    gsspo, gspo = (run_loss(name, batch, actor_config(clip_ratio_c=1e6)) for name in ("gsspo", "gspo"))
    torch.testing.assert_close(gsspo[0], gspo[0])
    torch.testing.assert_close(gsspo[1], gspo[1])


@pytest.mark.parametrize("dual_clip", [{}, {"clip_ratio_c": 1.3}, {"clip_ratio_c": 1e6}])
def test_one_token_a_subsequence_equals_verls_ppo_in_value_and_gradient(dual_clip):
    mask = torch.tensor([[1, 0] * 6, [0, 1] * 6, [1, 0] * 3 + [0] * 6])
    batch = random_batch(mask, seed=3, spread=0.3 if dual_clip else 1.5)
    config = actor_config(clip_ratio_low=0.1, clip_ratio_high=0.3, **dual_clip)
    loss, gradient, metrics = run_loss("gsspo", batch, config)
    ppo, ppo_gradient, ppo_metrics = run_loss("vanilla", batch, config)
    torch.testing.assert_close(loss, ppo, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gradient, ppo_gradient, rtol=1e-7, atol=1e-9)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(ppo_metrics["actor/pg_clipfrac"])
    assert 0 < metrics["actor/pg_clipfrac_low"] < metrics["actor/pg_clipfrac"]
    assert metrics["actor/pg_clipfrac_lower"] == pytest.approx(ppo_metrics["actor/pg_clipfrac_lower"])
    assert (metrics["actor/pg_clipfrac_lower"] > 0) == (dual_clip.get("clip_ratio_c") != 1e6)
    assert metrics["actor/ppo_kl"] == pytest.approx(ppo_metrics["actor/ppo_kl"])


def test_metrics_are_those_of_the_subsequences():
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
    log_ratio = torch.tensor([[0.1, 0.3, 9.0, -0.5], [9.0, -0.2, -0.2, -0.2], [9.0] * 4])
    old = torch.full((3, 4), -1.0)
    advantages = torch.tensor([[1.0], [-2.0], [5.0]]).expand(3, 4)
    config = actor_config(clip_ratio_low=0.1, clip_ratio_high=0.2)
    *_, metrics = run_loss("gsspo", (old + log_ratio, old, advantages, mask), config)
    # ratios 1.2214 (advantage 1), 0.6065 (advantage 1), 0.8187 (advantage -2)
    assert metrics == {
        "actor/pg_clipfrac": pytest.approx(2 / 3),
        "actor/pg_clipfrac_low": pytest.approx(1 / 3),
        "actor/pg_clipfrac_high": pytest.approx(1 / 3),
        "actor/pg_clipfrac_lower": 0.0,
        "actor/ratio_mean": pytest.approx(0.8822214),
        "actor/ratio_std": pytest.approx(0.2550036),
        "actor/ratio_max": pytest.approx(1.2214028),
        "actor/subsequences_per_response": pytest.approx(1.5),
        "actor/tokens_per_subsequence": pytest.approx(2.0),
        "actor/ppo_kl": pytest.approx(0.7 / 6),
    }


WITH_SUMS = GSsPOLossConfig(turn_sums=True)


def test_the_sums_by_turn_of_micro_batches_make_the_metrics_of_the_whole():
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
    log_ratio = torch.tensor([[0.1, 0.3, 9.0, -0.5], [9.0, -0.2, -0.2, -0.2], [9.0] * 4])
    old = torch.full((3, 4), -1.0)
    advantages = torch.tensor([[1.0], [-2.0], [5.0]]).expand(3, 4)
    batch = (old + log_ratio, old, advantages, mask)
    config = actor_config(clip_ratio_low=0.1, clip_ratio_high=0.2, policy_loss=WITH_SUMS)
    parts = [run_loss("gsspo", tuple(column[rows] for column in batch), config)[2] for rows in ([0], [1], [2])]
    sums = reduce_metrics({name: [part[name] for part in parts] for name in parts[0] if name.startswith(TURN_SUMS)})
    sums.pop(TURN_SUMS + SHARE)
    means = turn_means({name.removeprefix(TURN_SUMS): float(total) for name, total in sums.items()})
    first = [1.2214028, 0.8187308]  # the ratios of the first turns; that of the second is 0.6065307
    by_hand = {
        "turn_fraction/1": 2 / 3,
        "turn_fraction/2": 1 / 3,
        "turn_tokens/1": 2.5,
        "turn_tokens/2": 1.0,
        "turn_advantage/1": -0.5,
        "turn_advantage/2": 1.0,
        "turn_clip_fraction/1": 1.0,
        "turn_clip_fraction/2": 0.0,
        "turn_ratio_std/1": float(np.std(first)),
        "turn_ratio_std/2": 0.0,
    }
    assert {name: mean for name, mean in means.items() if "tokens" not in name.split("/")[1]} == pytest.approx(
        by_hand, abs=1e-6
    )


def test_the_loss_is_the_same_with_sums_by_turn_and_reports_none_unasked():
    batch = random_batch(random_mask(4, 8, 0), 0)
    plain, summing = (
        run_loss("gsspo", batch, actor_config()),
        run_loss("gsspo", batch, actor_config(policy_loss=WITH_SUMS)),
    )
    assert torch.equal(plain[0], summing[0])
    assert torch.equal(plain[1], summing[1])
    assert not [name for name in plain[2] if name.startswith(TURN_SUMS)]


@pytest.mark.parametrize("loss", ["gsspo", "gsspo_soft"])
def test_an_empty_micro_batch_reports_the_same_sums(loss):
    empty, usual = (
        run_loss(loss, random_batch(mask, seed=0), actor_config(policy_loss=WITH_SUMS))[2]
        for mask in (torch.zeros(2, 5), torch.ones(2, 5))
    )
    assert empty.keys() == usual.keys()
    sums = {name.removeprefix(TURN_SUMS): total for name, total in empty.items() if name.startswith(TURN_SUMS)}
    assert sums.pop(SHARE) > 0
    assert set(sums.values()) == {0.0}


def test_an_empty_micro_batch_has_a_graph_and_the_same_metrics_all_finite():
    loss, gradient, metrics = run_loss("gsspo", random_batch(torch.zeros(2, 5), seed=0), actor_config())
    assert loss.item() == 0
    assert not gradient.any()
    *_, usual = run_loss("gsspo", random_batch(torch.ones(2, 5), seed=0), actor_config())
    assert metrics.keys() == usual.keys()
    assert np.isfinite(list(metrics.values())).all()
    assert (metrics["actor/ratio_mean"], metrics["actor/pg_clipfrac"]) == (1.0, 0.0)


def test_verl_reduces_every_metric_as_its_name_says():
    batches = [random_batch(random_mask(4, 8, seed), seed) for seed in range(3)]
    per_mini_batch = [run_loss("gsspo", batch, actor_config())[2] for batch in batches]
    names = per_mini_batch[0].keys()
    reduced = reduce_metrics({name: [metrics[name] for metrics in per_mini_batch] for name in names})
    for name in names:
        values = [metrics[name] for metrics in per_mini_batch]
        assert reduced[name] == pytest.approx(max(values) if name == "actor/ratio_max" else np.mean(values))
        assert isinstance(values[0], float)
        Metric(value=values[0], aggregation="mean")


def test_one_token_a_turn_with_the_soft_gate_equals_verls_sapo_in_value_and_gradient():
    mask = torch.tensor([[1, 0] * 6, [0, 1] * 6, [1, 0] * 3 + [0] * 6])
    batch = random_batch(mask, seed=3, spread=0.5)
    for weights in (None, torch.rand(mask.shape, dtype=torch.float64)):
        config = actor_config(tau_pos=1.0, tau_neg=1.4)
        soft, sapo = (run_loss(name, batch, config, rollout_is_weights=weights) for name in ("gsspo_soft", "sapo"))
        torch.testing.assert_close(soft[0], sapo[0], rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(soft[1], sapo[1], rtol=1e-7, atol=1e-9)
