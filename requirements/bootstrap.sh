# Sourced by train.sh and tests/run.sh: leaves in $PYTHON an interpreter that has all that this project needs. Run by
# itself, `bash requirements/bootstrap.sh`, it only installs.
#
# The active environment is used if it has every pin of the requirements file and this package; otherwise .venv, made
# and filled on the first run. A second run installs nothing.

fail() {
  echo "error: $1" >&2
  exit 1
}

if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then
  HARDWARE=gpu
else
  HARDWARE=cpu
fi
REQUIREMENTS=requirements/$HARDWARE.txt

supported() { # is $1 a Python that verl 0.9.1 and every pinned release support?
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

ready() { # does $1 have every requirement, in its version, and this package?
  "$1" requirements/check.py "$REQUIREMENTS" 2>/dev/null
}

find_python() {
  local candidate
  for candidate in python3 python3.12 python3.11 python; do
    if command -v "$candidate" >/dev/null && supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or 3.12 found (verl 0.9.1 takes 3.10 to 3.12, and releases pinned in $REQUIREMENTS need 3.11): install one, for example python3.12, and run this again"
}

install() { # fill .venv
  local python
  python=$(find_python) || exit 1
  command -v c++ >/dev/null || command -v g++ >/dev/null ||
    fail "no C++ compiler found (vLLM compiles its CPU sampler with one, and flash-attn is built with one): install g++, for example with 'apt-get install g++', and run this again"
  echo "Installing $REQUIREMENTS into .venv (once; a few minutes)"
  supported .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv ||
    fail "could not make a virtual environment: install Python's venv module (Debian: apt-get install python3-venv)"
  if [ "$HARDWARE" = cpu ]; then
    .venv/bin/python -m pip install --disable-pip-version-check --no-deps -r "$REQUIREMENTS" || fail "pip could not install $REQUIREMENTS; its message is above"
  else
    grep -v '^flash-attn' "$REQUIREMENTS" | .venv/bin/python -m pip install --disable-pip-version-check -r /dev/stdin ||
      fail "pip could not install $REQUIREMENTS; its message is above"
    grep '^flash-attn' "$REQUIREMENTS" | PATH=$PWD/.venv/bin:$PATH .venv/bin/python -m pip install --disable-pip-version-check --no-build-isolation -r /dev/stdin ||
      fail "pip could not build flash-attn, which takes the nvcc of CUDA 13; its message is above"
  fi
  .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --editable . || fail "pip could not install this package; its message is above"
  .venv/bin/python -c 'import torch' ||
    fail "torch was installed but does not import: on a machine without a GPU pip must get a CPU build, see the head of requirements/cpu.txt"
}

if supported python3 && ready python3; then
  PYTHON=$(command -v python3)
else
  ready .venv/bin/python || install
  PYTHON=$PWD/.venv/bin/python
  export PATH=$PWD/.venv/bin:$PATH # ninja is there, for what vLLM compiles as it starts
fi
