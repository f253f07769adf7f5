"""The `workflow-r1` command."""

import sys

if sys.platform == "win32":  # before modules are imported that Windows lacks
    sys.exit("error: Workflow-R1 runs on Linux: on Windows install WSL 2 ('wsl --install') and use it there.")
