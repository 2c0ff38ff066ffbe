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

# A clone set up for everybody (scripts/setup --shared), or unpacked (scripts/workbook pack), holds the toolchain, the
# modules and what was compiled of them. Who cannot write there reads it through bin/buildcache.
KVQ_GO=$KVQ_SETUP/go
if [[ -d $KVQ_GO/mod ]]; then
  export GOMODCACHE=$KVQ_GO/mod GOFLAGS="$GOFLAGS -modcacherw"
  KVQ_TOOLCHAIN=$GOMODCACHE/golang.org/toolchain@v0.0.1-$GOTOOLCHAIN.linux-amd64/bin
  [[ ! -x $KVQ_TOOLCHAIN/go || :$PATH: == *":$KVQ_TOOLCHAIN:"* ]] || export PATH="$KVQ_TOOLCHAIN:$PATH"
  if [[ -w $KVQ_GO ]]; then
    export GOCACHE=$KVQ_GO/build
  else
    export GOCACHEPROG="$KVQ_ROOT/bin/buildcache $KVQ_GO/build" GOPROXY=off
  fi
fi
# What was unpacked has everything, so it asks nobody: packages come out of its own folder.
if [[ -d $KVQ_SETUP/wheels ]]; then
  export GOPROXY=off PIP_NO_INDEX=1 PIP_FIND_LINKS=$KVQ_SETUP/wheels
fi

# Jupyter keeps all it writes inside the clone, or where that is somebody else's, in one's own home; it sees no kernels or
# settings of other places.
KVQ_STATE=$KVQ_SETUP
[[ ! -e $KVQ_SETUP || -w $KVQ_SETUP ]] || KVQ_STATE=${XDG_DATA_HOME:-${HOME-}/.local/share}/kvqbook
export JUPYTER_CONFIG_DIR=$KVQ_STATE/jupyter/config JUPYTER_DATA_DIR=$KVQ_STATE/jupyter/data
export JUPYTER_RUNTIME_DIR=$KVQ_STATE/jupyter/runtime IPYTHONDIR=$KVQ_STATE/jupyter/ipython
unset JUPYTER_PATH JUPYTER_CONFIG_PATH

# Python of the virtual environment alone, and pip without the machine's habits that would lead it elsewhere.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
