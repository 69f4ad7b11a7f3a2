#!/bin/bash
# Proves that the simulation finds faults: puts each fault of tests/planted into a copy of the sources, one at a
# time, and plays simulations until one of them fails. Prints a table as Markdown, and fails when a fault was not
# found. Needs Rust and a C compiler. Arguments: parts of the names of those to be tried. SEEDS (20000): how many
# simulations at most for each.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/.."

seeds=${SEEDS:-20000}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/planted/build}
tree=$PWD/target/planted/tree
rm -rf "$tree"
mkdir -p "$tree"
cp -r Cargo.toml Cargo.lock .cargo src config load "$tree" 2>/dev/null || cp -r Cargo.toml Cargo.lock src config load "$tree"

missed=0
printf '| fault | found | after |\n|---|---|---|\n'
for patch in tests/planted/*.patch; do
    name=$(basename "$patch" .patch)
    [ $# -eq 0 ] || printf '%s\n' "$@" | grep -qF -f - <<<"$name" || continue
    patch -s -p1 -d "$tree" <"$patch"
    (cd "$tree" && cargo build -q -p event-load) || { echo "planted.sh: $name does not compile" >&2; exit 1; }
    began=$(date +%s.%N)
    if found=$("$CARGO_TARGET_DIR/debug/event-load" simulate --first --seeds "$seeds" 2>&1); then
        found='**not found**'
        missed=$((missed + 1))
    else
        found=$(grep -m 1 -e '^seed' -e panicked <<<"$found" | cut -c 1-100 | tr '|' ' ' || true)
    fi
    printf '| %s: %s | %s | %.1f s |\n' "$name" "$(head -n 1 "$patch")" "$found" "$(echo "$(date +%s.%N) - $began" | bc)"
    patch -s -R -p1 -d "$tree" <"$patch"
done
[ "$missed" -eq 0 ] || { echo "planted.sh: $missed faults were not found" >&2; exit 1; }
