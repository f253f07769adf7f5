"""verl's synchronous trainer, which besides measures by turn, and goes on measuring the mismatch in bypass mode."""

from typing import Any

import transfer_queue as tq

from workflow_r1.turn_metrics import mismatch_metrics, turn_means
from workflow_r1.verl_plugin.gsspo_loss import TURN_SUMS
from workflow_r1.verl_plugin.upstream import PPOTrainerSync

SAMPLED = 16
"""In bypass mode the trainer computes the log-probs of one response in so many, to know the mismatch."""


class MeasuringTrainer(PPOTrainerSync):
    """Adds the metrics of `workflow_r1.turn_metrics` to verl's."""

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

    def _update_actor(self, batch: Any, metrics: dict) -> Any:
        """As verl's. The loss reports sums by turn; they are of the whole batch only now."""
        batch = super()._update_actor(batch, metrics)
        sums = {name: metrics.pop(name) for name in list(metrics) if name.startswith(TURN_SUMS)}
        metrics.update(turn_means({name.removeprefix(TURN_SUMS): total for name, total in sums.items()}))
        return batch

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
