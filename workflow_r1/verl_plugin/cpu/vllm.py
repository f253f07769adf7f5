"""What vLLM's CPU build needs to take part in training; loaded by vLLM through its `vllm.general_plugins` group."""

from workflow_r1.verl_plugin import cpu


def keep_linear_weights() -> None:
    """Stop vLLM 0.27.1 from emptying linear weights after packing them for oneDNN.

    `dispatch_cpu_unquantized_gemm` (vllm/model_executor/layers/utils.py:311) drops `layer.weight`, so verl's weight
    update has nothing to write into and hangs. Without the oneDNN handler vLLM uses torch's own linear.
    """
    if not cpu.is_selected():
        return
    import vllm._custom_ops

    vllm._custom_ops._supports_onednn = False
