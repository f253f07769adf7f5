"""What pyproject.toml cannot say: in a wheel, the recipes of verl/trainer/config lie in the package, groups below."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["workflow_r1*"]), "workflow_r1.recipes"],
    package_dir={"workflow_r1.recipes": "verl/trainer/config"},
)
