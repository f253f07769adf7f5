"""What verl loads through its `verl.plugins` entry point, at `import verl`, in every process.

`import verl` pulls in none of the modules that hold verl's registries, and importing them here would make every
verl user pay seconds. So each registration waits for the module whose registry it fills: whoever imports that
module finds the plug-in registered, whoever does not pays nothing.
"""

import importlib

from wrapt import register_post_import_hook

from workflow_r1.verl_plugin import cpu

# verl's module with the registry -> our module that registers itself there when imported
REGISTRATIONS = {
    "verl.trainer.ppo.core_algos": "workflow_r1.verl_plugin.gsspo_loss",
    "verl.trainer.ppo.rollout_corr_helper": "workflow_r1.verl_plugin.rollout_correction",
    "verl.trainer.ppo.v1.trainer_base": "workflow_r1.verl_plugin.trainer",
    "verl.experimental.agent_loop.agent_loop": "workflow_r1.verl_plugin.agent_loop",
    "verl.experimental.reward_loop.reward_manager.registry": "workflow_r1.verl_plugin.reward_manager",
}


def _import_when_imported(trigger: str, module: str) -> None:
    register_post_import_hook(lambda _: importlib.import_module(module), trigger)


for _trigger, _module in REGISTRATIONS.items():
    _import_when_imported(_trigger, _module)

if cpu.is_selected():
    importlib.import_module("workflow_r1.verl_plugin.cpu.platform")
    _import_when_imported("verl.utils.distributed", "workflow_r1.verl_plugin.cpu.patches")
