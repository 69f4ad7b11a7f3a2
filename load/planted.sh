#!/bin/bash
# Proves that the simulation finds faults: puts each fault of tests/planted into a copy of the sources, one at a
# time, and plays simulations until one of them fails. Prints a table as Markdown, and fails when a fault was not
# found. Needs Rust, a C compiler and `patch`. Arguments: parts of the names of those to be tried. SEEDS (20000):
# how many simulations at most for each.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/.."
command -v patch >/dev/null || { echo "planted.sh: needs the command \"patch\"" >&2; exit 2; }

seeds=${SEEDS:-20000}
export CARGO_TARGET_DIR=$PWD/target/planted/build
tree=$PWD/target/planted/tree
rm -rf "$tree"
mkdir -p "$tree"
cp -r Cargo.toml Cargo.lock src config load "$tree"

is_wanted() {
    local name=$1 part
    shift
    [ $# -gt 0 ] || return 0
    for part in "$@"; do
        [[ $name != *"$part"* ]] || return 0
    done
    return 1
}

tried=0 missed=0
printf '| fault | found | after |\n|---|---|---|\n'
for patch in tests/planted/*.patch; do
    name=$(basename "$patch" .patch)
    is_wanted "$name" "$@" || continue
    tried=$((tried + 1))
    patch -s -p1 -d "$tree" <"$patch" || { echo "planted.sh: $name does not fit the sources" >&2; exit 1; }
    (cd "$tree" && cargo build -q -p event-load) || { echo "planted.sh: $name does not compile" >&2; exit 1; }
    began=$SECONDS
    if found=$("$CARGO_TARGET_DIR/debug/event-load" simulate --first --seeds "$seeds" 2>&1); then
        found='**not found**'
        missed=$((missed + 1))
    else
        found=$(grep -m 1 -e '^seed' -e panicked <<<"$found" | cut -c 1-100 | tr '|' ' ' || true)
    fi
    printf '| %s: %s | %s | %d s |\n' "$name" "$(head -n 1 "$patch")" "$found" $((SECONDS - began))
    patch -s -R -p1 -d "$tree" <"$patch"
done
[ "$tried" -gt 0 ] || { echo "planted.sh: no fault has such a name" >&2; exit 2; }
[ "$missed" -eq 0 ] || { echo "planted.sh: $missed of $tried faults were not found" >&2; exit 1; }
