"""GSsPO inside verl: against verl's own losses and estimators, and through verl's own code paths."""

from contextlib import nullcontext
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import verl.trainer
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.nn.parallel import DistributedDataParallel
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.metric import Metric, reduce_metrics
from verl.workers.config import ActorConfig, PolicyLossConfig
from verl.workers.utils.losses import ppo_loss

from workflow_r1.verl_plugin.gsspo_loss import GSsPOLossConfig

CONFIG_TARGET = "workflow_r1.verl_plugin.gsspo_loss.GSsPOLossConfig"


def actor_config(global_batch_info=None, **overrides):
    options = {"strategy": "fsdp", "rollout_n": 1, "ppo_micro_batch_size_per_gpu": 1} | overrides
    config = ActorConfig(**options)
    config.global_batch_info.update(global_batch_info or {})
    return config


def random_batch(mask, seed=0, spread=0.3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.as_tensor(mask).bool()
    old = torch.randn(mask.shape, generator=generator, dtype=dtype) - 2
    log_prob = old + spread * torch.randn(mask.shape, generator=generator, dtype=dtype)
    advantages = torch.randn(len(mask), 1, generator=generator, dtype=dtype) * mask
    return old, log_prob, advantages, mask


def random_mask(num_responses, num_tokens, seed):
    return torch.rand(num_responses, num_tokens, generator=torch.Generator().manual_seed(seed)) < 0.6


def run(name, batch, config, loss_agg_mode="seq-mean-token-mean", **kwargs):
    """Loss, gradient and metrics of a loss in verl's registry."""
    old, log_prob, advantages, mask = batch
    log_prob = log_prob.clone().requires_grad_()
    loss, metrics = get_policy_loss_fn(name)(
        old_log_prob=old,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode=loss_agg_mode,
        config=config,
        **kwargs,
    )
    loss.backward()
    return loss.detach(), log_prob.grad, metrics


# --- equality with verl's own losses ---


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
            gsspo, gspo = (run(name, batch, config, rollout_is_weights=weights) for name in ("gsspo", "gspo"))
            # gspo's token mean divides by (length + 1e-8)
            torch.testing.assert_close(gsspo[0], gspo[0], rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(gsspo[1], gspo[1], rtol=1e-7, atol=1e-9)
            assert gsspo[2]["actor/ppo_kl"] == pytest.approx(gspo[2]["actor/ppo_kl"])


def test_ratios_beyond_the_bound_are_treated_as_gspo_treats_them():
    old, _, _, mask = random_batch(torch.ones(2, 4))
    batch = (old, old + torch.tensor([[12.0], [-30.0]]), torch.tensor([[-1.0], [1.0]]).double().expand(2, 4), mask)
    gsspo, gspo = (run(name, batch, actor_config()) for name in ("gsspo", "gspo"))
    torch.testing.assert_close(gsspo[0], gspo[0])
    torch.testing.assert_close(gsspo[1], gspo[1])


def test_one_token_a_subsequence_equals_verls_ppo_in_value_and_gradient():
    batch = random_batch(torch.tensor([[1, 0] * 6, [0, 1] * 6, [1, 0] * 3 + [0] * 6]), seed=3)
    # clip_ratio_c is verl's third, dual clip, which PPO does not have: out of the way.
    config = actor_config(clip_ratio_low=0.1, clip_ratio_high=0.3, clip_ratio_c=1e6)
    (loss, gradient, metrics), (ppo, ppo_gradient, ppo_metrics) = (run(n, batch, config) for n in ("gsspo", "vanilla"))
    torch.testing.assert_close(loss, ppo, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gradient, ppo_gradient, rtol=1e-7, atol=1e-9)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(ppo_metrics["actor/pg_clipfrac"])
    assert 0 < metrics["actor/pg_clipfrac_low"] < metrics["actor/pg_clipfrac"]
    assert metrics["actor/ppo_kl"] == pytest.approx(ppo_metrics["actor/ppo_kl"])


# --- configuration ---


@pytest.mark.parametrize("loss_agg_mode", ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-sum-norm"])
def test_the_loss_does_not_depend_on_verls_loss_agg_mode(loss_agg_mode):
    batch = random_batch(random_mask(4, 10, seed=3))
    torch.testing.assert_close(
        run("gsspo", batch, actor_config(), loss_agg_mode)[:2], run("gsspo", batch, actor_config())[:2]
    )


def test_low_and_high_clip_fall_back_to_the_common_one():
    batch = random_batch(random_mask(4, 10, seed=4), spread=1.0)
    both = run("gsspo", batch, actor_config(clip_ratio_low=0.05, clip_ratio_high=0.05))
    fallback = run("gsspo", batch, actor_config(clip_ratio=0.05, clip_ratio_low=None, clip_ratio_high=None))
    other = run("gsspo", batch, actor_config(clip_ratio=0.05))
    assert torch.equal(both[0], fallback[0])
    assert not torch.equal(both[0], other[0])


def compose_config(*overrides):
    with initialize_config_dir(str(Path(verl.trainer.__file__).parent / "config"), version_base=None):
        return compose("ppo_trainer", ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1", *overrides])


def test_verl_instantiates_the_configuration_from_its_own_yaml():
    policy_loss = "actor_rollout_ref.actor.policy_loss"
    overrides = [f"{policy_loss}.loss_mode=gsspo", f"{policy_loss}._target_={CONFIG_TARGET}"]
    config = compose_config(*overrides, f"+{policy_loss}.subsequence_weighting=token")
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert isinstance(actor.policy_loss, GSsPOLossConfig)
    assert actor.policy_loss.loss_mode == "gsspo"
    assert actor.policy_loss.subsequence_weighting == "token"

    default = omega_conf_to_dataclass(compose_config(*overrides).actor_rollout_ref.actor)
    plain = omega_conf_to_dataclass(compose_config(overrides[0]).actor_rollout_ref.actor)
    assert type(plain.policy_loss) is PolicyLossConfig
    batch = random_batch([[1, 1, 1, 0, 1, 0], [1, 0, 1, 1, 0, 1]])
    token, uniform, unconfigured = (run("gsspo", batch, config)[0] for config in (actor, default, plain))
    assert torch.equal(uniform, unconfigured)
    assert not torch.equal(uniform, token)


def test_a_bad_weighting_is_refused_in_one_sentence_that_names_the_choices():
    with pytest.raises(ValueError, match="weighted by one of uniform, token, not by 'longest'"):
        GSsPOLossConfig(subsequence_weighting="longest")
    policy_loss = "actor_rollout_ref.actor.policy_loss"
    config = compose_config(f"{policy_loss}._target_={CONFIG_TARGET}", f"+{policy_loss}.subsequence_weighting=longest")
    with pytest.raises(InstantiationException, match="weighted by one of uniform, token, not by 'longest'"):
        omega_conf_to_dataclass(config.actor_rollout_ref.actor)


def test_what_is_missing_is_said_in_one_sentence():
    batch = random_batch([[1, 1]])
    with pytest.raises(ValueError, match="needs global_batch_size"):
        run("gsspo", batch, actor_config({"dp_size": 2}))
    with pytest.raises(ValueError, match="needs the actor's configuration"):
        run("gsspo", batch, None)


# --- the same mini-batch, cut up ---


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.sets(st.integers(1, 7)), st.sampled_from([1, 2, 4]))
def test_micro_batches_on_any_number_of_ranks_add_up_to_the_whole(seed, cuts, dp_size):
    """Gradients are summed over micro-batches and averaged over ranks; so are the losses that verl reports."""
    mask = random_mask(8, 9, seed)
    mask[seed % 8] = False
    batch = random_batch(mask, seed)
    whole = run("gsspo", batch, actor_config({"dp_size": 1, "global_batch_size": 8}))
    part_config = actor_config({"dp_size": dp_size, "global_batch_size": 8})

    rank_ends = set(range(0, 9, 8 // dp_size))
    parts = [run("gsspo", [x[i:j] for x in batch], part_config) for i, j in pairwise(sorted(cuts | rank_ends))]
    torch.testing.assert_close(sum(loss for loss, *_ in parts) / dp_size, whole[0])
    torch.testing.assert_close(torch.cat([gradient for _, gradient, _ in parts]) / dp_size, whole[1])


class TinyPolicy(torch.nn.Module):
    """Token ids in, log-probs of the same ids out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.logits = torch.nn.Sequential(torch.nn.Embedding(11, 8), torch.nn.Tanh(), torch.nn.Linear(8, 11))

    def forward(self, tokens):
        context = tokens.roll(1, dims=1)
        return self.logits(context).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def policy_batch():
    tokens = torch.randint(11, (8, 13), generator=torch.Generator().manual_seed(5))
    log_prob = TinyPolicy()(tokens).detach()
    mask = random_mask(8, 13, seed=6)
    mask[5] = False
    old = log_prob + 0.3 * torch.randn(log_prob.shape, generator=torch.Generator().manual_seed(7))
    advantages = torch.randn(8, 1, generator=torch.Generator().manual_seed(8)) * mask
    return tokens, old, advantages, mask


def accumulate(policy, cuts, config, sync_context=lambda _: nullcontext()):
    """What verl's engine does with a mini-batch: one backward for each micro-batch."""
    tokens, old, advantages, mask = policy_batch()
    for i, j in pairwise(cuts):
        with sync_context(j == cuts[-1]):
            part = slice(i, j)
            args = old[part], policy(tokens[part]), advantages[part], mask[part]
            get_policy_loss_fn("gsspo")(*args, config=config)[0].backward()
    return [parameter.grad for parameter in policy.parameters()]


def train_on_rank(_, rank, folder):
    rendezvous = {"init_method": f"file://{folder}/rendezvous", "timeout": timedelta(minutes=3)}
    dist.init_process_group("gloo", **rendezvous, rank=rank, world_size=2)
    policy = DistributedDataParallel(TinyPolicy())
    config = actor_config({"dp_size": 2, "global_batch_size": 8})
    cuts = ([0, 3, 4], [4, 5, 8])[rank]
    gradients = accumulate(policy, cuts, config, lambda last: nullcontext() if last else policy.no_sync())
    torch.save(gradients, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_real_data_parallel_ranks_get_the_gradient_of_the_whole(tmp_path):
    expected = accumulate(TinyPolicy(), [0, 8], actor_config({"dp_size": 1, "global_batch_size": 8}))
    other_rank = mp.spawn(train_on_rank, args=(1, str(tmp_path)), nprocs=1, join=False)
    train_on_rank(None, 0, str(tmp_path))
    other_rank.join()
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"rank{rank}.pt"), expected)
    assert all(gradient.abs().max() > 1e-3 for gradient in expected)


# --- metrics ---


def test_metrics_are_those_of_the_subsequences():
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
    log_ratio = torch.tensor([[0.1, 0.3, 9.0, -0.5], [9.0, -0.2, -0.2, -0.2], [9.0] * 4])
    old = torch.full((3, 4), -1.0)
    advantages = torch.tensor([[1.0], [-2.0], [5.0]]).expand(3, 4)
    config = actor_config(clip_ratio_low=0.1, clip_ratio_high=0.2)
    *_, metrics = run("gsspo", (old, old + log_ratio, advantages, mask), config)
    # ratios 1.2214 (advantage 1), 0.6065 (advantage 1), 0.8187 (advantage -2)
    assert metrics == {
        "actor/pg_clipfrac": pytest.approx(2 / 3),
        "actor/pg_clipfrac_low": pytest.approx(1 / 3),
        "actor/pg_clipfrac_high": pytest.approx(1 / 3),
        "actor/ratio_mean": pytest.approx(0.8822214),
        "actor/ratio_std": pytest.approx(0.2550036),
        "actor/ratio_max": pytest.approx(1.2214028),
        "actor/subsequences_per_response": pytest.approx(1.5),
        "actor/tokens_per_subsequence": pytest.approx(2.0),
        "actor/ppo_kl": pytest.approx(0.7 / 6),
    }


def test_an_empty_micro_batch_has_a_graph_and_the_same_metrics_all_finite():
    loss, gradient, metrics = run("gsspo", random_batch(torch.zeros(2, 5)), actor_config())
    assert loss.item() == 0
    assert not gradient.any()
    *_, usual = run("gsspo", random_batch(torch.ones(2, 5)), actor_config())
    assert metrics.keys() == usual.keys()
    assert np.isfinite(list(metrics.values())).all()
    assert (metrics["actor/ratio_mean"], metrics["actor/pg_clipfrac"]) == (1.0, 0.0)


def test_verl_reduces_every_metric_as_its_name_says():
    per_mini_batch = [run("gsspo", random_batch(random_mask(4, 8, seed), seed), actor_config())[2] for seed in range(3)]
    names = per_mini_batch[0].keys()
    reduced = reduce_metrics({name: [metrics[name] for metrics in per_mini_batch] for name in names})
    for name in names:
        values = [metrics[name] for metrics in per_mini_batch]
        assert reduced[name] == pytest.approx(max(values) if name == "actor/ratio_max" else np.mean(values))
        assert isinstance(values[0], float)
        Metric(value=values[0], aggregation="mean")


# --- through verl's ppo_loss ---


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


# --- the advantage estimator ---


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.booleans(), st.integers(0, 2**16))
def test_the_estimator_equals_verls_grpo_to_the_bit(num_responses, num_groups, by_std, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = random_mask(num_responses, 6, seed).to(torch.int64)
    mask[:, 0] = 1
    rewards = torch.randn(num_responses, 6, generator=generator)
    index = np.array(
        [f"uid{i}" for i in torch.randint(num_groups, (num_responses,), generator=generator)], dtype=object
    )
    expected, _ = get_adv_estimator_fn("grpo")(rewards.clone(), mask, index, norm_adv_by_std_in_grpo=by_std)
    config = OmegaConf.create({"norm_adv_by_std_in_grpo": by_std})
    advantages, returns = get_adv_estimator_fn("gsspo")(
        token_level_rewards=rewards, response_mask=mask, config=config, index=index
    )
    assert torch.equal(advantages, expected)
    assert torch.equal(returns, expected)


@pytest.mark.parametrize("by_std", [True, False])
def test_verls_trainer_reaches_the_estimator_and_its_options(by_std):
    mask = torch.tensor([[1, 0, 1], [1, 0, 1], [0, 0, 0]])
    rewards = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    uid = np.array(["a", "a", "a"], dtype=object)

    def advantages(*overrides):
        config = compose_config(f"algorithm.norm_adv_by_std_in_grpo={by_std}", *overrides)
        data = DataProto.from_dict(
            {"token_level_rewards": rewards.clone(), "response_mask": mask}, non_tensors={"uid": uid}
        )
        return compute_advantage(data, "gsspo", config=config.algorithm).batch["advantages"]

    # The third response is out of training. Outcomes 3 and 0; with turn rewards 1 and 0, and the first turns' 2 and 0.
    # Each pair a, 0 is centred to ±a/2, and its standard deviation is a/√2.
    outcome, turns = advantages(), advantages("+algorithm.gsspo_turn_rewards=True")
    sign = torch.tensor([[1.0], [-1.0], [0.0]])
    if by_std:
        torch.testing.assert_close(outcome, sign * 0.70710678 * mask, rtol=0, atol=2e-6)
        torch.testing.assert_close(turns, sign * torch.tensor([1.41421356, 0.0, 0.70710678]), rtol=0, atol=4e-6)
    else:
        torch.testing.assert_close(outcome, sign * 1.5 * mask)
        torch.testing.assert_close(turns, sign * torch.tensor([1.5, 0.0, 0.5]))
