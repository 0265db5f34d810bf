#!/usr/bin/env bash
# Runs go build and says every half minute how far it is:
# progress.sh NAME FLAGS... -- PACKAGES...
# Packages that the build cache has are not compiled, so the count may end below the total.
set -euo pipefail
name=$1
shift
flags=()
while [ "$1" != -- ]; do flags+=("$1"); shift; done
shift
say() { printf '%s build %s\n' "$(date +%T)" "$*"; }

say "$name"
log=$(mktemp)
ticker=
trap 'kill $ticker 2>/dev/null; rm -f "$log"' EXIT

# It waits by reading a pipe to which nobody writes: a sleep would outlive it and keep the output open.
report() {
	local total
	total=$(go list -deps "$@" 2>/dev/null | wc -l)
	exec 3<> <(:)
	while ! read -r -t 30 -u 3; do say "$name: $(grep -cv '^#' "$log") of $total packages"; done
}
report "$@" &
ticker=$!

# -v writes the name of each package that is compiled; what else is written is an error.
if ! go build -v "${flags[@]}" -- "$@" 2>"$log"; then
	grep -E '^#|[:() ]' "$log" >&2
	say "$name: failed"
	exit 1
fi
