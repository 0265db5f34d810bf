#!/usr/bin/env bash
# Builds what is in dist/ once more, as somebody else would elsewhere, and compares the sums of all files:
# from a copy of the sources in another directory, with another umask and time zone, and with a build cache of
# Go's of its own, so that no compiled package and no program is taken from the first build. That cache stays
# in .trivet/elsewhere: a package that has not changed since an earlier run was compiled by that run. Both
# builds have the Go, the modules and the packages of Debian of this machine.
#
# twice.sh VERSION REVISION
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
version=$1 revision=$2
say() { printf '%s twice %s\n' "$(date +%T)" "$*"; }

elsewhere=$(mktemp -d "${TMPDIR:-/tmp}/trivet-elsewhere-XXXXXX")
trap 'rm -rf "$elsewhere"' EXIT
source=$elsewhere/other-sources
mkdir -p "$source/.trivet" "$here/.trivet/elsewhere"
ln -s "$here/.trivet/debian" "$source/.trivet/debian"

say "building $version once more in $source"
umask 077

# What was deleted and is not committed yet is among git's files, and not among those of the first build.
sources() {
	export LC_ALL=C
	comm -z -23 <(git ls-files -z --cached --others --exclude-standard | sort -zu) \
		<(git ls-files -z --deleted | sort -zu)
}
(cd "$here" && sources | tar --create --null --files-from=-) |
	tar --extract --no-same-permissions --directory="$source"

TZ=Pacific/Kiritimati LC_ALL=C GOCACHE=$here/.trivet/elsewhere/go-build \
	make --no-print-directory -C "$source" dist VERSION="$version" REVISION="$revision" >"$elsewhere/log" ||
	{ tail -n 40 "$elsewhere/log"; exit 1; }

# The sums of one build are those of the files of the other.
(cd "$source/dist" && sha256sum --check --quiet "$here/dist/SHA256SUMS")
cmp "$source/dist/SHA256SUMS" "$here/dist/SHA256SUMS"
say "$(wc -l <"$here/dist/SHA256SUMS") files are equal, byte for byte"
