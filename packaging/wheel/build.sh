#!/bin/sh
# One wheel with all programs, for user mode: build.sh BINDIR PROFILE OUTDIR. `pip install` then gives `aex`.
# Needs maturin (MATURIN, else the one on PATH).
set -eu

bin=$1 profile=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
work=$out/wheel
[ "$profile" = debug ] && profile=dev

rm -rf "$work"
for program in aex-admin aex-egress aex-proxy; do
    install -D -m 755 -s "$bin/$program" "$work/data/scripts/$program"
done
sed "s|@TREE@|$(realpath --relative-to="$work" "$tree")|" "$here/pyproject.toml" > "$work/pyproject.toml"
out=$(realpath "$out")
cd "$work"
exec "${MATURIN:-maturin}" build --profile "$profile" --out "$out" --compatibility linux
