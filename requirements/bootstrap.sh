# Sourced by train.sh and tests/run.sh: leaves in $PYTHON an interpreter that has all that this project needs. Run by
# itself, `bash requirements/bootstrap.sh`, it only installs.
#
# The active environment is used if it has every pin of the requirements file and this package; otherwise .venv, or
# .venv-gpu where there is an NVIDIA GPU, made and filled on the first run. A second run installs nothing.

[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started as 'sh requirements/bootstrap.sh'
export PYTHONUTF8=1 # whatever the locale
GLIBC_MINOR=31 # of glibc 2: torch's wheels are tagged manylinux_2_28, llguidance's manylinux_2_31
TORCH_CPU_WHEELS=https://download.pytorch.org/whl/cpu

fail() {
  echo "error: $1" >&2
  exit 1
}

check_system() { # before Python is looked for: no installed Python would help
  case "$(uname -sr) $(uname -m)" in
    Linux*-Microsoft\ *) fail "this is WSL 1, in which Ray does not run: change to WSL 2 with 'wsl --set-version' and run this again" ;;
    Linux*\ x86_64 | Linux*\ aarch64) ;;
    MINGW* | MSYS* | CYGWIN* | Windows*) fail "Workflow-R1 runs on Linux: on Windows install WSL 2 ('wsl --install') and run this in it" ;;
    Darwin*) fail "Workflow-R1 runs on Linux: on macOS run this in a Linux container or virtual machine" ;;
    *) fail "Workflow-R1 runs on Linux with an x86_64 or aarch64 processor, and this is $(uname -sm): take another machine" ;;
  esac
  getconf GNU_LIBC_VERSION >/dev/null 2>&1 ||
    fail "this Linux has no glibc, which the wheels of torch and vLLM need: take a distribution such as Debian, Ubuntu or Fedora"
  case $PWD in
    *:*) fail "the path of this folder has a colon, which PATH and PYTHONPATH cannot hold: rename $PWD" ;;
    *[\$\{\}]*) fail "the path of this folder has one of \$ { }, which setuptools takes for a variable: rename $PWD" ;;
  esac
}

supported() { # is $1 a Python that verl 0.9.1 and every pinned release support?
  "$1" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12) and sys.implementation.name == "cpython"))' 2>/dev/null
}

ready() { # does $1 have every requirement, in its version, and this package?
  "$1" requirements/check.py "$REQUIREMENTS" 2>/dev/null
}

find_python() {
  local candidate
  for candidate in python3 python3.12 python3.11 python .venv/bin/python .venv-gpu/bin/python; do
    if command -v "$candidate" >/dev/null && supported "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or 3.12 found (verl 0.9.1 takes 3.10 to 3.12, and releases pinned in requirements/ need 3.11): install one, for example python3.12, and run this again"
}

pip_install() ( # into $VENV and nowhere else, whatever the environment has pip do with other packages
  unset PIP_TARGET PIP_PREFIX PIP_CONSTRAINT
  PIP_USER=0 "$VENV/bin/python" -m pip install --disable-pip-version-check "$@"
)

# Under the plain version most indexes serve the CUDA build, half a gigabyte that does not work without its libraries.
# So the CPU build is asked for by its own version, of the indexes that pip is configured with and then of PyTorch's;
# last the plain version, as a mirror may serve a CPU build, with a constraint that has pip refuse CUDA's by its metadata.
install_cpu_torch() {
  local torch
  torch=$(grep -o '^torch==[0-9.]*' "$REQUIREMENTS")
  pip_install --quiet --no-deps "$torch+cpu" 2>/dev/null ||
    pip_install --no-deps --extra-index-url "$TORCH_CPU_WHEELS" "$torch+cpu" ||
    { echo 'cuda-toolkit<0' | pip_install --constraint /dev/stdin --constraint "$REQUIREMENTS" "$torch" &&
      PYTHONPATH=requirements "$VENV/bin/python" -c 'import check; raise SystemExit(not check.torch_is_for("cpu"))'; } ||
    fail "pip finds no CPU build of $torch where it is configured to look, nor at $TORCH_CPU_WHEELS (its messages are above): give it access to that index, or a folder with the wheel of $torch+cpu in PIP_FIND_LINKS"
}

# Optional: without it training takes torch's own attention. A compiler of it takes up to 8 GiB of memory.
install_flash_attention() {
  local memory
  if [ -n "${FLASH_ATTN_WHEEL:-}" ]; then
    pip_install --no-deps "$FLASH_ATTN_WHEEL" ||
      fail "pip could not install FLASH_ATTN_WHEEL=$FLASH_ATTN_WHEEL; its message is above"
  elif command -v nvcc >/dev/null; then
    memory=$("$python" -c 'import os; print(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 33)')
    export MAX_JOBS=${MAX_JOBS:-$((memory > 1 ? memory : 1))}
    PATH=$PWD/$VENV/bin:$PATH pip_install --no-build-isolation -r requirements/flash-attn.txt ||
      echo "note: flash-attn could not be built (pip's message is above), and torch's own attention is used, which is slower: name a wheel for this torch in FLASH_ATTN_WHEEL and remove $VENV" >&2
  else
    echo "note: no nvcc found to build flash-attn with, and torch's own attention is used, which is slower: install CUDA 13's nvcc, or name a wheel in FLASH_ATTN_WHEEL, and remove $VENV" >&2
  fi
}

make_environment() { # an empty $VENV, where one with everything finds room
  local gib=6
  [ "$HARDWARE" = cpu ] || gib=16
  "$python" -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < int(sys.argv[1]) << 30)' "$gib" ||
    fail "the disk of $PWD has less than $gib GiB free, which the installation takes: free some, or move this folder"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module to make a virtual environment with: install it, for example with 'apt-get install python3-venv', and run this again"
  "$python" -m venv --clear "$VENV" || fail "could not make a virtual environment in $PWD/$VENV; the message is above"
}

install() { # fill $VENV
  local libc
  libc=$(getconf GNU_LIBC_VERSION)
  [[ ! $libc =~ ^glibc\ 2\.([0-9]+) ]] || [ "${BASH_REMATCH[1]}" -ge "$GLIBC_MINOR" ] ||
    fail "this Linux has $libc, and the wheels of torch, vLLM and what they need are built for 2.$GLIBC_MINOR and newer: take a newer one, such as Debian 11, Ubuntu 20.04 or RHEL 9, or a container of it"
  command -v c++ >/dev/null || command -v g++ >/dev/null ||
    fail "no C++ compiler found (vLLM compiles its CPU sampler with one, and flash-attn is built with one): install g++, for example with 'apt-get install g++', and run this again"
  "$python" -c 'import os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    fail "the headers of $python are missing (vLLM compiles against them): install them, for example with 'apt-get install python3-dev', and run this again"
  [ -w . ] || fail "no environment with everything is active, and one cannot be made here: $PWD is read-only"
  echo "Installing $REQUIREMENTS into $VENV (once; a few minutes)"
  [ -z "$NOTE" ] || echo "note: $NOTE" >&2
  supported "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || make_environment
  if [ "$HARDWARE" = cpu ]; then
    install_cpu_torch
    pip_install --no-deps -r "$REQUIREMENTS" || fail "pip could not install $REQUIREMENTS; its message is above"
  else
    pip_install -r "$REQUIREMENTS" || fail "pip could not install $REQUIREMENTS; its message is above"
    install_flash_attention
  fi
  pip_install --quiet --no-deps --editable . || fail "pip could not install this package; its message is above"
  "$VENV/bin/python" -c 'import torch' && "$VENV/bin/python" requirements/check.py "$REQUIREMENTS" ||
    fail "what pip installed does not work, as is said above: remove $VENV and see which index pip takes torch from"
}

check_system
python=$(find_python) || exit 1
hardware=$("$python" -I workflow_r1/runs/hardware.py) || exit 1 # it has said why
read -r HARDWARE NOTE <<<"$hardware"
REQUIREMENTS=requirements/$HARDWARE.txt
VENV=.venv
[ "$HARDWARE" = cpu ] || VENV=.venv-gpu # the two sets hold different builds of the same packages

if supported python3 && ready python3; then
  PYTHON=$(command -v python3)
else
  ready "$VENV/bin/python" || install
  PYTHON=$PWD/$VENV/bin/python
  export PATH=$PWD/$VENV/bin:$PATH # ninja is there, for what vLLM compiles as it starts
fi
