#!/bin/sh
# Packs a tree that `make install` made into a .deb: build.sh TREE VERSION OUTDIR.
# COMPRESS (xz, gzip, none) is dpkg-deb's -Z.
set -eu

tree=$1 version=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -a "$tree/." "$work/"
# Its only contents are the package's; what services need at run time lies in /run.
doc=$work/usr/share/doc/aex
install -D -m 644 "$here/copyright" "$doc/copyright"
gzip -9nf "$doc/CHANGELOG.md"

# The newest symbols of the C library that the programs ask for.
glibc=$(cd "$work/usr/bin" && objdump -T aex aex-admin aex-egress aex-proxy \
    | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 | cut -d_ -f2)
size=$(du -sk "$work" | cut -f1)

install -d -m 755 "$work/DEBIAN"
sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/; s/@GLIBC@/$glibc/" \
    "$here/control.in" > "$work/DEBIAN/control"
for script in postinst prerm postrm; do
    install -m 755 "$here/$script" "$work/DEBIAN/$script"
done
install -m 644 "$here/templates" "$work/DEBIAN/templates"
(cd "$work" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) > "$work/DEBIAN/md5sums"

mkdir -p "$out"
dpkg-deb --root-owner-group -Z"${COMPRESS:-xz}" --build "$work" "$out/aex_${version}_$arch.deb"
