#!/bin/sh
# Makes the virtual environment that the client tests run in, once for each set of requirements.
# Usage: tests/clients/setup.sh VENV
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 VENV" >&2
    exit 2
fi
venv=$1
here=$(cd "$(dirname "$0")" && pwd)
want=$(cat "$here/requirements.txt" "$here/setup.sh" | sha256sum | cut -d' ' -f1)
stamp="$venv/.requirements"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    exit 0
fi
python3 -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    -r "$here/requirements.txt"
echo "$want" > "$stamp"
