"""The operators that a workflow is built from, served by one OpenAI-compatible endpoint."""

from workflow_r1.operators.builtin import BUILTIN_OPERATORS, WARNING_OP
from workflow_r1.operators.errors import OperatorConfigError, OperatorEndpointError
from workflow_r1.operators.pool import OperatorPool
from workflow_r1.operators.result import OperatorResult
from workflow_r1.operators.settings import OperatorSettings
from workflow_r1.operators.spec import InputField, OperatorSpec, Sampling
from workflow_r1.operators.usage import OperatorUsage, UsageMeter

__all__ = [
    "BUILTIN_OPERATORS",
    "WARNING_OP",
    "InputField",
    "OperatorConfigError",
    "OperatorEndpointError",
    "OperatorPool",
    "OperatorResult",
    "OperatorSettings",
    "OperatorSpec",
    "OperatorUsage",
    "Sampling",
    "UsageMeter",
]
