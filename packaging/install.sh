#!/bin/sh
# Puts AEX into a tree: install.sh BINDIR DESTDIR PREFIX, BINDIR being where cargo left the programs.
# What `make install` runs; packages are made of the same tree. It starts nothing and makes no users:
# systemd-sysusers, systemd-tmpfiles and systemctl do, see packaging/README.md.
set -eu

bin=$1 dest=$2 prefix=$3
here=$(cd "$(dirname "$0")" && pwd)
tree=$(dirname "$here")
to=$dest$prefix

for program in aex aex-admin aex-egress aex-proxy; do
    [ -x "$bin/$program" ] || {
        echo "$bin/$program is missing: build first (make build PROFILE=release)" >&2
        exit 1
    }
    install -D -m 755 -s "$bin/$program" "$to/bin/$program"
done
ln -sf aex "$to/bin/aex-ctl"

# Units name their programs by absolute paths.
for unit in "$here"/systemd/*; do
    [ -f "$unit" ] || continue
    target=$to/lib/systemd/system/$(basename "$unit")
    install -D -m 644 "$unit" "$target"
    [ "$prefix" = /usr ] || sed -i "s|/usr/bin/aex|$prefix/bin/aex|g" "$target"
done
nftables=$to/lib/systemd/system/nftables.service.d/aex.conf
install -D -m 644 "$here/systemd/nftables.service.d/aex.conf" "$nftables"
[ "$prefix" = /usr ] || sed -i "s|/usr/lib/aex|$prefix/lib/aex|g" "$nftables"
install -D -m 755 "$here/nftables/host-rules.sh" "$to/lib/aex/host-rules"
install -D -m 644 "$here/sysusers.d/aex.conf" "$to/lib/sysusers.d/aex.conf"
install -D -m 644 "$here/tmpfiles.d/aex.conf" "$to/lib/tmpfiles.d/aex.conf"
[ "$prefix" = /usr ] || sed -i "s|/usr/share/aex|$prefix/share/aex|" "$to/lib/tmpfiles.d/aex.conf"

install -D -m 644 "$tree/config/models.yaml" "$to/share/aex/models.yaml"
install -D -m 644 "$here/nftables/aex.nft" "$to/share/aex/aex.nft"
for example in "$tree"/config/policies-examples/*; do
    install -D -m 644 "$example" "$to/share/doc/aex/policies-examples/$(basename "$example")"
done
for page in README.md CHANGELOG.md LICENSE docs/*.md; do
    install -D -m 644 "$tree/$page" "$to/share/doc/aex/$(basename "$page")"
done

# Both are made from the command line's own definition.
install -d -m 755 "$to/share/man/man1"
"$bin/aex" man "$to/share/man/man1"
gzip -9nf "$to"/share/man/man1/*.1
completion() {
    install -d -m 755 "$(dirname "$2")"
    "$bin/aex" completions "$1" > "$2"
    chmod 644 "$2"
}
completion bash "$to/share/bash-completion/completions/aex"
completion zsh "$to/share/zsh/vendor-completions/_aex"
completion fish "$to/share/fish/vendor_completions.d/aex.fish"
