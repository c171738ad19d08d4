#!/usr/bin/env bash
# Makes the Python environment of the peers: bench/peers/setup_env.sh [FOLDER], out/peers/env unless said. About 6 GB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
env=${1:-$here/../../out/peers/env}
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
  echo "setup_env: python3 with venv is missing: apt-get install python3-venv" >&2
  exit 1
fi
echo "setup_env: installing SAELens, dictionary_learning and transformers into $env"
python3 -m venv "$env"
"$env/bin/pip" install --quiet --no-cache-dir --requirement "$here/requirements.txt"
echo "setup_env: done"
