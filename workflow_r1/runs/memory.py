"""The memory that a run takes, phase by phase, by arithmetic: nothing is measured, and no GPU is asked.

Counted is what grows with the model, the tokens and the number of GPUs, as verl 0.9.1's FSDP2 engine and vLLM hold it;
what a process takes by itself is a constant. The figures are a lower bound that leaves fragmentation out.
"""

from dataclasses import dataclass

from omegaconf import DictConfig

from workflow_r1.runs.model_shape import ModelShape

GIB = 1024**3
_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
_PROCESS_ON_GPU = 1.0  # GiB: CUDA's context, NCCL's buffers and kernels; the trainer's and vLLM's own
_PROCESS_ON_HOST = 4.0  # GiB: Python, torch with its libraries, pinned buffers
_OTHER_PROCESSES = 16.0  # GiB a node: Ray, TransferQueue with a step's trajectories, agent loops, the driver
_EMBEDDED_PROCESSES = 5.0  # GiB: all of a run without a GPU, whose processes share torch's pages


@dataclass(frozen=True)
class Phase:
    """What one phase of a step takes, in GiB.

    Attributes:
        gpu: on each GPU.
        host: on each node.
    """

    name: str
    gpu: float
    host: float


@dataclass(frozen=True)
class Estimate:
    """The memory of a run.

    Attributes:
        phases: in the order in which they come.
        cached_tokens: the tokens for which a vLLM has room; below 0 its weights do not fit.
        checkpoint: GiB of one checkpoint, over all nodes.
    """

    phases: list[Phase]
    cached_tokens: int
    checkpoint: float


def estimate(config: DictConfig, shape: ModelShape, gpu_memory: float, has_flash_attention: bool) -> Estimate:
    """The memory of a run of this configuration.

    Args:
        gpu_memory: of one GPU, in GiB, of which vLLM takes its share; not read where the run is on a CPU.
        has_flash_attention: whose cross-entropy keeps one copy of the logits less.
    """
    actor, rollout, model = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "model"))
    on_cpu, fsdp = config.trainer.device == "cpu", actor.fsdp_config
    here = config.trainer.n_gpus_per_node
    shards = fsdp.fsdp_size if fsdp.fsdp_size > 0 else here * config.trainer.nnodes
    precision = _BYTES[fsdp.model_dtype]
    computed = _BYTES[(fsdp.get("mixed_precision") or {}).get("param_dtype", "bf16")]
    trained = shape.adapter(model.lora_rank) if model.lora_rank > 0 else shape.parameters

    whole = precision * (shape.parameters + (trained if model.lora_rank > 0 else 0)) / GIB
    weights = whole / shards
    gradients = precision * trained / shards / GIB
    adam = 2 * gradients
    served = _BYTES[rollout.dtype] * shape.parameters / rollout.tensor_model_parallel_size / GIB
    reference = 0.0
    if (actor.use_kl_loss or config.algorithm.use_kl_in_reward) and model.lora_rank <= 0:
        reference = _BYTES[config.actor_rollout_ref.ref.fsdp_config.model_dtype] * shape.parameters / shards / GIB

    def work(tokens: int, trains: bool) -> float:
        """What a pass over a micro-batch holds beside weights, gradients and Adam."""
        logits = 0.0 if model.use_fused_kernels else computed * tokens * shape.vocabulary / GIB
        copies = 2 + (trains and not has_flash_attention) + (trains and actor.entropy_coeff != 0)
        gathered = computed * (shape.embedding + 2 * shape.layer) / GIB
        queries = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        inside = computed * tokens * (3 * shape.intermediate + queries + 4 * shape.hidden) / GIB
        kept = computed * tokens * shape.hidden * shape.layers / GIB if trains else 0.0
        if trains and not model.enable_gradient_checkpointing:
            kept = inside * shape.layers
        reduced = (computed + 4) * shape.embedding / GIB if trains else 0.0  # a gradient, then in fp32 to sum it
        return max(copies * logits, reduced) + gathered + inside + kept

    scoring = work(rollout.log_prob_max_token_len_per_gpu, trains=False)
    training = work(actor.ppo_max_token_len_per_gpu, trains=True)
    largest = precision * shape.embedding / GIB + rollout.checkpoint_engine.update_weights_bucket_megabytes / 1024
    cached = 2 * shape.layers * max(1, shape.kv_heads // rollout.tensor_model_parallel_size) * shape.head_dim
    cached *= _BYTES[rollout.dtype]
    checkpoint = (whole * GIB + 2 * precision * trained) / GIB

    if on_cpu:
        cache = (rollout.engine_kwargs.get("vllm") or {}).get("kv_cache_memory_bytes", GIB) / GIB
        resting = here * (weights + adam + served + cache + reference) + _EMBEDDED_PROCESSES
        phases = [
            Phase("rollout", 0, resting),
            Phase("log-probs", 0, resting + here * scoring),
            Phase("update", 0, resting + here * (gradients + training)),
            Phase("weight sync", 0, resting + largest),
        ]
        return Estimate(phases, int(cache * GIB / cached), checkpoint)

    keeps_weights = not (fsdp.param_offload or fsdp.offload_policy)
    keeps_adam = not (fsdp.optimizer_offload or fsdp.offload_policy)
    resting = weights * keeps_weights + adam * keeps_adam
    on_gpu = 0.0 if fsdp.offload_policy else 1.0  # while they are worked on
    share = rollout.gpu_memory_utilization * gpu_memory
    asleep = 2 * _PROCESS_ON_GPU
    aside = weights * (not keeps_weights) + adam * (not keeps_adam) + gradients * fsdp.offload_policy
    asleep_weights = served if model.lora_rank > 0 else 0.0  # a base that is never sent again is kept
    host = here * (aside + reference + asleep_weights + 2 * _PROCESS_ON_HOST) + _OTHER_PROCESSES
    loading = whole * (here if shape.tied else 1)  # where they are tied, every rank reads all of it
    phases = [
        Phase("start", weights * on_gpu + _PROCESS_ON_GPU, loading + here * (reference + _PROCESS_ON_HOST)),
        Phase("rollout", resting + share + _PROCESS_ON_GPU, host),
        Phase("log-probs", weights * on_gpu + adam * keeps_adam + scoring + asleep, host),
        Phase("update", (weights + gradients + adam) * on_gpu + training + asleep, host),
        Phase("weight sync", weights * on_gpu + adam * keeps_adam + served + largest + asleep, host),
    ]
    room = share - served - 2 * _PROCESS_ON_GPU
    return Estimate(phases, int(room * GIB / cached), checkpoint)
