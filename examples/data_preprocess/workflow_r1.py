"""Prepare the training data: `workflow-r1 prepare` under the name that verl's users look for.

To see every option: python examples/data_preprocess/workflow_r1.py --help
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python searches this file's folder first, where the file itself would be found as the package of the same name.
    here = Path(__file__).resolve().parent
    sys.path = [str(here.parents[1]), *(entry for entry in sys.path if Path(entry).resolve() != here)]

    import typer

    from workflow_r1.cli.data import prepare

    typer.run(prepare)
