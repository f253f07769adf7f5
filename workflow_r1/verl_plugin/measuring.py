"""Measurements by turn: those of the loss, in any V1 trainer, and those of the mismatch, in the synchronous one."""

from operator import truediv
from typing import Any

import transfer_queue as tq

from workflow_r1.turn_metrics import mismatch_metrics, turn_means
from workflow_r1.verl_plugin.gsspo_loss import SHARE, TURN_SUMS
from workflow_r1.verl_plugin.upstream import PPOTrainerSync, replaces_verls

SAMPLED = 16
"""In bypass mode the trainer computes the log-probs of one response in so many, to know the mismatch."""


@replaces_verls
def reduce_metrics(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> dict[str, float]:
    """verl 0.9.1 has averaged a loss's metrics over micro-batches and ranks and averages them over mini-batches here
    (utils/metric/utils.py:25). Sums by turn are of the whole step again, and become means."""
    metrics = args[0]
    sums = {name.removeprefix(TURN_SUMS): metrics.pop(name) for name in list(metrics) if name.startswith(TURN_SUMS)}
    if not sums:
        return wrapped(*args, **kwargs)
    shares = sums.pop(SHARE)  # of each mini-batch 1 over the number of parts that it was averaged over
    totals = {name: sum(map(truediv, means, shares)) for name, means in sums.items()}
    return wrapped(*args, **kwargs) | turn_means(totals)


class MeasuringTrainer(PPOTrainerSync):
    """Adds the mismatch of `workflow_r1.turn_metrics` to verl's metrics, and goes on measuring it in bypass mode."""

    def _compute_old_log_prob(self, batch: Any, metrics: dict) -> Any:
        """As verl's. The mismatch is measured here, where no correction has changed the response mask yet."""
        correction = self.config.algorithm.rollout_correction
        if not correction.bypass_mode:
            batch = super()._compute_old_log_prob(batch, metrics)
            metrics.update(self._mismatch(batch))
            return batch
        # Whatever this writes for its sample is written over when the sampler's log-probs become the old ones.
        sample = batch.select_keys(self._sampled(batch.keys))
        correction.bypass_mode = False
        try:
            super()._compute_old_log_prob(sample, metrics)
        finally:
            correction.bypass_mode = True
        metrics.update(self._mismatch(sample))
        return super()._compute_old_log_prob(batch, metrics)

    def _sampled(self, keys: list[str]) -> list[str]:
        """Some for every rank, as many for each, from all over the batch, which verl has ordered by length."""
        ranks = self.actor_rollout_wg.world_size
        size = max(len(keys) // SAMPLED // ranks, 1) * ranks
        return keys[:: len(keys) // size][:size]

    def _mismatch(self, batch: Any) -> dict[str, float]:
        if not self.config.actor_rollout_ref.rollout.calculate_log_probs:
            return {}
        fields = ["old_log_probs", "rollout_log_probs", "entropy", "response_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        data = data.to_padded_tensor()
        return mismatch_metrics(
            data["old_log_probs"], data["rollout_log_probs"], data["entropy"], data["response_mask"]
        )
