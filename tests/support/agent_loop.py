"""Our agent loop without verl's workers around it."""

import asyncio
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedTokenizerBase
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from workflow_r1.verl_plugin.agent_loop import WorkflowAgentLoop


class BareAgentLoop(WorkflowAgentLoop):
    """What a session uses: the tokenizer, verl's continuous-token builder, the lengths, and `server` to sample."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, server: Any, response_length: int):
        self.tokenizer = tokenizer
        self.server_manager = server
        self.rollout_config = SimpleNamespace(prompt_length=64, response_length=response_length)
        self.continuous_token_builder = create_continuous_token_builder(tokenizer, hf_model_type="qwen3")
        self.loop = asyncio.get_running_loop()
