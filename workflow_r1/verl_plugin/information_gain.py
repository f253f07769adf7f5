"""Information gain as a reward by turn, for any verl agent whose rows hold gold answers (IGPO, arXiv 2510.14967).

    algorithm.gsspo_information_gain=0.1

ℓ_k is the policy's mean log-probability of the gold answer's tokens if it answered in place of its turn k, knowing all
that it has read by then. Turn k earns ℓ_{k+1} − ℓ_k, by how much it raised it, times the setting; the last turn, which
nothing follows, earns none. The trainer's own forward pass computes all ℓ of a step, in batches, before its update.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict

from workflow_r1.credit import Credit
from workflow_r1.data.verl_rows import row_golds
from workflow_r1.gsspo import turn_starts
from workflow_r1.verl_plugin.measuring import MeasuringTrainer
from workflow_r1.verl_plugin.outputs import Rollouts
from workflow_r1.verl_plugin.upstream import assign_non_tensor

OPENING = "<think>I know enough to answer.</think><answer>"
"""Given, before the first of the gold answers."""


class InformedTrainer(MeasuringTrainer):
    """Adds to verl's token-level rewards what the turns told the policy."""

    def _compute_advantage(self, batch: Any, metrics: dict) -> Any:
        if weight := Credit.of(self.config.algorithm).information_gain:
            started = time.perf_counter()
            gains = self._reward_information(batch, weight)
            metrics["timing_s/information_gain"] = time.perf_counter() - started
            if gains:
                metrics["reward/information_gain"] = sum(gains) / len(gains)
        return super()._compute_advantage(batch, metrics)

    def _reward_information(self, batch: Any, weight: float) -> list[float]:
        """Write the rewards with the gains in them to the transfer queue.

        Returns:
            the gain of each turn but the last ones, and of none where nothing is trained on.

        Raises:
            ValueError: a rollout has several outputs, of which only the last one's rewards count.
        """
        if not Rollouts.of(batch.keys).single:
            raise ValueError(
                "An agent loop returned several outputs for one rollout, which algorithm.gsspo_information_gain does "
                "not take: leave it at 0, or return one output."
            )
        fields = ["prompts", "responses", "response_mask", "rm_scores", "reward_model"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        prompts, responses = data["prompts"].unbind(), data["responses"].unbind()
        golds = [next(iter(row_golds(truth))) for truth in data.pop("reward_model").tolist()]
        starts = [turn_starts(mask[None] > 0)[0].nonzero()[:, 0].tolist() for mask in data["response_mask"].unbind()]
        places = [(row, start) for row, of_row in enumerate(starts) if len(of_row) > 1 for start in of_row]

        opening, answers = self._encode(OPENING), {gold: self._encode(gold) for gold in set(golds)}
        levels: list[float] = []
        for first in range(0, len(places), len(batch)):
            asked = [
                (torch.cat([prompts[row], responses[row][:start], opening]), answers[golds[row]])
                for row, start in places[first : first + len(batch)]
            ]
            levels += self._mean_log_probs(*zip(*asked, strict=True))

        scores, gains = [of_row.clone() for of_row in data["rm_scores"].unbind()], []
        for (row, _), (after, start), low, high in zip(places, places[1:], levels, levels[1:], strict=False):
            if row == after:
                gains.append(high - low)
                scores[row][start - 1] += weight * gains[-1]  # where the observation ends that the turn was given
        if gains:
            rewards = TensorDict({"rm_scores": _nested(scores)}, batch_size=len(scores))
            tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=rewards)
        return gains

    def _mean_log_probs(self, contexts: Sequence[torch.Tensor], answers: Sequence[torch.Tensor]) -> list[float]:
        """Of each answer after its context, by the forward pass that also computes the old log-probs."""
        rollout = self.config.actor_rollout_ref.rollout
        multiple = self.actor_rollout_wg.world_size * (rollout.log_prob_micro_batch_size_per_gpu or 1)
        longest = rollout.prompt_length + rollout.response_length  # what the micro-batches have room for
        sequences = [torch.cat(pair)[-longest:] for pair in zip(contexts, answers, strict=True)]
        padded = sequences + sequences[:1] * (-len(sequences) % multiple)
        fields = {"input_ids": padded, "position_ids": [torch.arange(len(sequence)) for sequence in padded]}
        fields["loss_mask"] = [torch.ones_like(sequence) for sequence in padded]  # which verl counts in any case
        data = TensorDict({name: _nested(rows) for name, rows in fields.items()}, batch_size=len(padded))
        assign_non_tensor(data, calculate_entropy=False, compute_loss=False, temperature=rollout.temperature)
        log_probs = self.actor_rollout_wg.compute_log_prob(data)["log_probs"].unbind()
        # A position has the log-prob of the token after it.
        return [
            float(of_sequence[-len(answer) - 1 : -1].mean())
            for of_sequence, answer in zip(log_probs, answers, strict=False)
        ]

    def _encode(self, text: str) -> torch.Tensor:
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False), dtype=torch.int64)


def _nested(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)
