#!/bin/sh
# What nftables.service does where AEX is installed: host-rules load|reload|stop. The host's own rules change as
# they would without AEX, and AEX's table, where it is in force, stays as it is: all in one transaction, so that
# no packet passes in between, and where the host's rules are bad nothing changes.
# It is the table in force that is kept, not /etc/aex/aex.nft: a bad edit of that costs the host no rules.
set -eu

# Fedora's; else Debian's.
rules=/etc/sysconfig/nftables.conf
[ -e "$rules" ] || rules=/etc/nftables.conf

own=$(/usr/sbin/nft list table inet aex 2> /dev/null) || own=
{
    # Debian's rules flush what was there themselves, Fedora's do not.
    case $1:$rules in
    stop:* | reload:/etc/sysconfig/*) echo 'flush ruleset' ;;
    esac
    [ "$1" = stop ] || echo "include \"$rules\""
    [ -z "$own" ] || printf 'table inet aex\ndelete table inet aex\n%s\n' "$own"
} | /usr/sbin/nft -f -
