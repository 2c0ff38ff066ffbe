# shellcheck shell=bash disable=SC2034
# The environment in which everything of this clone runs. Sourced by the other scripts; a shell may source it too:
#   source scripts/env.sh
# It sets variables only, and nothing that it names need exist yet.

KVQ_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export KVQ_ROOT
KVQ_SETUP=$KVQ_ROOT/.setup
KVQ_PYTHON=$KVQ_SETUP/venv/bin/python

# One toolchain, the one of go.mod's toolchain line, whatever the machine's own settings are. cgo loads XLA.
GOTOOLCHAIN=$(sed -n 's/^toolchain //p' "$KVQ_ROOT/go.mod")
export GOTOOLCHAIN
export GOFLAGS=-buildvcs=false GOWORK=off CGO_ENABLED=1 GOOS=linux GOARCH=amd64
export GOMLX_NO_AUTO_INSTALL=1
[[ :$PATH: == *":$KVQ_ROOT/bin:"* ]] || export PATH="$KVQ_ROOT/bin:$PATH"

# Jupyter keeps all it writes inside the clone and sees no kernels or settings of other places.
export JUPYTER_CONFIG_DIR=$KVQ_SETUP/jupyter/config JUPYTER_DATA_DIR=$KVQ_SETUP/jupyter/data
export JUPYTER_RUNTIME_DIR=$KVQ_SETUP/jupyter/runtime IPYTHONDIR=$KVQ_SETUP/jupyter/ipython
unset JUPYTER_PATH JUPYTER_CONFIG_PATH

# Python of the virtual environment alone, and pip without the machine's habits that would lead it elsewhere.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
