"""The same mini-batch, cut into micro-batches and spread over ranks."""

import os
from contextlib import nullcontext
from datetime import timedelta
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import random_batch, random_mask
from support.verl_losses import actor_config, run_loss
from torch.nn.parallel import DistributedDataParallel
from verl.trainer.ppo.core_algos import get_policy_loss_fn


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.sets(st.integers(1, 7)), st.sampled_from([1, 2, 4]))
def test_micro_batches_on_any_number_of_ranks_add_up_to_the_whole(seed, cuts, dp_size):
    """Gradients are summed over micro-batches and averaged over ranks; so are the losses that verl reports."""
    mask = random_mask(8, 9, seed)
    mask[seed % 8] = False
    batch = random_batch(mask, seed)
    whole = run_loss("gsspo", batch, actor_config({"dp_size": 1, "global_batch_size": 8}))
    part_config = actor_config({"dp_size": dp_size, "global_batch_size": 8})

    rank_ends = set(range(0, 9, 8 // dp_size))
    parts = [run_loss("gsspo", [x[i:j] for x in batch], part_config) for i, j in pairwise(sorted(cuts | rank_ends))]
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


def train_on_rank(rank, folder):
    rendezvous = {"init_method": f"file://{folder}/rendezvous", "timeout": timedelta(minutes=3)}
    dist.init_process_group("gloo", **rendezvous, rank=rank, world_size=2)
    policy = DistributedDataParallel(TinyPolicy())
    config = actor_config({"dp_size": 2, "global_batch_size": 8})
    cuts = ([0, 3, 4], [4, 5, 8])[rank]
    gradients = accumulate(policy, cuts, config, lambda last: nullcontext() if last else policy.no_sync())
    torch.save(gradients, f"{folder}/rank{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's destructor joins a thread that may want the lock which it holds itself


@pytest.mark.slow
def test_two_real_data_parallel_ranks_get_the_gradient_of_the_whole(tmp_path):
    expected = accumulate(TinyPolicy(), [0, 8], actor_config({"dp_size": 1, "global_batch_size": 8}))
    mp.spawn(train_on_rank, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"rank{rank}.pt"), expected)
    assert all(gradient.abs().max() > 1e-3 for gradient in expected)
