"""The recipe of a run: a Hydra configuration from this project's overlay over verl's own tree."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from workflow_r1.data.training import load_training_file
from workflow_r1.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
IN_WHEEL, IN_REPOSITORY = PACKAGE / "recipes", PACKAGE.parent / "verl" / "trainer" / "config"
CONFIG_DIR = IN_WHEEL if IN_WHEEL.is_dir() else IN_REPOSITORY
"""The recipes, which a wheel holds inside the package (setup.py): in site-packages, `verl` is verl's own folder."""

REFERENCE, EMBEDDED, SMOLLM2 = "workflow_r1", "workflow_r1_embedded", "workflow_r1_smollm2"


class LaunchError(UserError):
    """Why a run cannot start or go on: one sentence that says what to do."""


def quoted(text: object) -> str:
    """`text` as a value in Hydra's grammar, in an override or an element of a list.

    Raises:
        LaunchError: it holds `${`. That can be escaped once, and verl resolves its configuration twice.
    """
    value = str(text)
    if "${" in value:
        place = value.index("${")
        is_template = "{{" in value or "{%" in value
        what = f"chat template at {value[max(place - 20, 0) : place + 20]!r}" if is_template else f"path {value!r}"
        remedy = "write {{ '$' }}{ there, or '$' ~ '{' in an expression" if is_template else "rename it"
        raise LaunchError(f"The {what} holds '${{', with which a reference begins in verl: {remedy}.")
    return QuotedString(value, Quote.single).with_quotes()


def with_quoted_paths(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command line, where a value need not be quoted a second time for Hydra: `a=/data/run (1)`.

    What Hydra reads stays as it is, but for a path with a comma, which it would take for two.
    """
    parser, readable = OverridesParser.create(), []
    for override in overrides:
        key, _, value = override.partition("=")
        try:
            is_read = not parser.parse_override(override).is_sweep_override()
        except HydraException:
            is_read = False
        readable.append(override if is_read else f"{key}={_readable(value)}" if value else override)
    return readable


def with_our_settings(overrides: Sequence[str]) -> list[str]:
    """The overrides, where those of the section `workflow_r1` and `algorithm.gsspo_...` may name what no recipe holds.

    Their defaults, and what is no setting of ours, stand in `WorkflowConfig` and `Credit` alone.
    """
    ours = re.compile(r"workflow_r1[.=]|algorithm\.gsspo_")
    return [f"++{override}" if ours.match(override) else override for override in overrides]


def _readable(value: str) -> str:
    is_path = value.startswith(("/", "~/", "./", "../"))
    if not is_path and _is_read(value):  # a sweep, which is refused later in words of its own
        return value
    if value.startswith("[") and value.endswith("]") and not re.search(r"[\[\]{}'\"]", value[1:-1]):
        return f"[{','.join(quoted(element.strip()) for element in value[1:-1].split(','))}]"
    is_template = value.startswith(("{{", "{%", "{#"))
    return value if value[0] in "[{'\"" and not is_template else quoted(value)


def _is_read(value: str) -> bool:
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True


def compose_recipe(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a recipe as verl's trainer will.

    Args:
        name: a configuration in `CONFIG_DIR`, without its ending.
        overrides: Hydra overrides, `key=value`.

    Raises:
        LaunchError: there is no recipe of that name, or an override is malformed, names an unknown key or
            refers to one.
    """
    if not (CONFIG_DIR / f"{name}.yaml").is_file():
        raise LaunchError(f"There is no recipe {name!r} in {CONFIG_DIR}: take {REFERENCE}, {EMBEDDED} or {SMOLLM2}.")
    package = importlib.util.find_spec("verl")
    if package is None or not package.submodule_search_locations:
        raise LaunchError(
            "verl is not installed in this Python: start with train.sh, which installs it, or run "
            "pip install 'workflow-r1[train]'."
        )
    search_path = quoted(f"file://{package.submodule_search_locations[0]}/trainer/config")
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base=None):
            config = compose(name, overrides=[f"hydra.searchpath=[{search_path}]", *overrides])
        OmegaConf.to_container(config, resolve=True)  # as verl will
    except InterpolationResolutionError as error:
        setting = next((override.partition("=")[0] for override in overrides if "${" in override), error.full_key)
        raise LaunchError(
            f"{setting} holds a reference that leads nowhere ({str(error).partition(chr(10))[0]}): '${{' begins one in "
            "verl's configuration, which a chat template writes as {{ '$' }}{."
        ) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise LaunchError(_explain(str(error), overrides)) from None
    return config


def total_steps(config: DictConfig) -> int | None:
    """The training steps that a configuration asks for, as verl counts them; None where its data lies elsewhere."""
    return config.trainer.total_training_steps or steps_of_epochs(config)


def steps_of_epochs(config: DictConfig) -> int | None:
    """The steps in `trainer.total_epochs`, at which a run ends in any case.

    Returns:
        None where the data lies elsewhere, or a dataset class of one's own reads it.
    """
    files = config.data.train_files
    files = [files] if isinstance(files, str) else files
    if any("://" in file for file in files) or (config.data.get("custom_cls") or {}).get("path"):
        return None
    rows = sum(load_training_file(file).num_rows for file in files)
    if config.data.train_max_samples > 0:
        rows = min(rows, config.data.train_max_samples)
    return config.trainer.total_epochs * (rows // config.data.train_batch_size)


def _explain(message: str, overrides: Sequence[str]) -> str:
    if unknown := re.search(r"Could not override '([^']+)'", message):
        key = unknown[1]
        return (
            f"Unknown setting {key!r}: check its spelling against verl/trainer/config, "
            f"or write +{key}=... to add a key that verl's tree does not have."
        )
    if missing := re.search(r"Could not find '(\w+)/([^']+)'", message):
        group, name = missing.groups()
        options = ", ".join(sorted(file.stem for file in (CONFIG_DIR / group).glob("*.yaml")))
        return f"There is no {group}={name}: take one of {options}."
    first_line = message.strip().splitlines()[0]
    return (
        f"The overrides {' '.join(overrides)!r} are not a Hydra configuration, where a value with special characters "
        f"has quotes of its own, \"name='a (1)'\": {first_line}"
    )
