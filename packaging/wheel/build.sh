#!/bin/sh
# One wheel with all programs, for user mode: build.sh BINDIR PROFILE OUTDIR. `pip install` then gives `aex`.
# With maturin: MATURIN, else the one on PATH, else one that is fetched for it.
set -eu

bin=$1 profile=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
work=$out/wheel
[ "$profile" = debug ] && profile=dev

maturin=${MATURIN:-$(command -v maturin || true)}
if [ -z "$maturin" ]; then
    maturin=$(realpath -m "$out")/maturin/bin/maturin
    [ -x "$maturin" ] || {
        python3 -m venv "$out/maturin"
        "$out/maturin/bin/python" -m pip install --quiet --disable-pip-version-check maturin==1.16.0
    }
fi

rm -rf "$work" "$out"/aex-*.whl
for program in aex-admin aex-egress aex-proxy; do
    install -D -m 755 -s "$bin/$program" "$work/data/scripts/$program"
done
sed "s|@TREE@|$(realpath --relative-to="$work" "$tree")|" "$here/pyproject.toml" > "$work/pyproject.toml"
out=$(realpath "$out")
cd "$work"
exec "$maturin" build --profile "$profile" --out "$out" --compatibility linux
