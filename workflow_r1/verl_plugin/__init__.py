"""What verl loads through its `verl.plugins` entry point, at `import verl`, in every process.

Releases without such a group load it by name: `VERL_USE_EXTERNAL_MODULES=workflow_r1.verl_plugin`.

`import verl` pulls in none of the modules that hold verl's registries, and importing them here would make every
verl user pay seconds. So each registration waits for the module whose registry it fills: whoever imports that
module finds the plug-in registered, whoever does not pays nothing.
"""

import importlib

from workflow_r1.verl_plugin import cpu
from workflow_r1.verl_plugin.upstream import PATCHED, REGISTRATIONS, import_when_imported

for _trigger, _module in REGISTRATIONS.items():
    import_when_imported(_trigger, _module)

if cpu.is_selected():
    importlib.import_module("workflow_r1.verl_plugin.cpu.platform")
    import_when_imported(PATCHED["initialize_global_process_group_ray"], "cpu.patches")
