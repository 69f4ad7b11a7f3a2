#!/bin/bash
# Proves that the tests find faults: puts each fault of tests/planted into a copy of the sources, one at a time.
# Simulations are played until one of them fails. A simulation has no SQL and no threads that run at the same time:
# faults in these are caught by the tests that the second line of the patch names. Prints a table as Markdown, and
# fails when a fault was not found.
# Needs Rust, a C compiler, `patch` and what the tests need. Arguments: parts of the names of those to be tried.
# SEEDS (20000): how many simulations at most for each.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/.."
command -v patch >/dev/null || { echo "planted.sh: needs the command \"patch\"" >&2; exit 2; }

seeds=${SEEDS:-20000}
export CARGO_TARGET_DIR=$PWD/target/planted/build
tree=$PWD/target/planted/tree
rm -rf "$tree"
mkdir -p "$tree"
cp -r Cargo.toml Cargo.lock README.md src config load tests "$tree"

is_wanted() {
    local name=$1 part
    shift
    [ $# -gt 0 ] || return 0
    for part in "$@"; do
        [[ $name != *"$part"* ]] || return 0
    done
    return 1
}

# Both say what found the fault, and fail when nothing did.
simulated() {
    local said
    ! said=$("$CARGO_TARGET_DIR/debug/event-load" simulate --first --seeds "$seeds" 2>&1) || return 1
    grep -m 1 -e '^seed' -e panicked <<<"$said" | cut -c 1-100 | tr '|' ' '
}

tested() {
    local said
    ! said=$(cd "$tree" && timeout 600 cargo test -q --workspace --test "$1" "$2" 2>&1) || return 1
    sed -n 's/^    \([a-z_:0-9]*\)$/\1/p' <<<"$said" | sort -u | head -n 1 | grep . || echo "$2"
}

tried=0 missed=0
printf '| fault | found by | after |\n|---|---|---|\n'
for patch in tests/planted/*.patch; do
    name=$(basename "$patch" .patch)
    is_wanted "$name" "$@" || continue
    tried=$((tried + 1))
    case $(sed -n 2p "$patch") in
        "Test: "*) target=it ;;
        "Schedules: "*) target=schedules ;;
        *) target=simulate ;;
    esac
    test=$(sed -n '2s/^[A-Z][a-z]*: //p' "$patch")
    patch -s -p1 -d "$tree" <"$patch" || { echo "planted.sh: $name does not fit the sources" >&2; exit 1; }
    (cd "$tree" && cargo test -q --workspace --test "$target" --no-run) ||
        { echo "planted.sh: $name does not compile" >&2; exit 1; }
    began=$SECONDS
    found=$(if [ -n "$test" ]; then tested "$target" "$test"; else simulated; fi) || found='**nothing**' missed=$((missed + 1))
    printf '| %s: %s | %s | %d s |\n' "$name" "$(head -n 1 "$patch")" "$found" $((SECONDS - began))
    patch -s -R -p1 -d "$tree" <"$patch"
done
[ "$tried" -gt 0 ] || { echo "planted.sh: no fault has such a name" >&2; exit 2; }
[ "$missed" -eq 0 ] || { echo "planted.sh: $missed of $tried faults were not found" >&2; exit 1; }
