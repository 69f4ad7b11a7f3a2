#!/bin/sh
# Measures event-tracker against other ways to count on this machine (Debian or Ubuntu) and prints the
# tables that the README shows. Needs Rust (https://rustup.rs), installs what else is missing; arguments go
# to `event-load compare`.
set -eu
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null; then
    echo "compare.sh: there is no cargo; install Rust from https://rustup.rs first" >&2
    exit 1
fi
missing=""
# SQLite and the allocator are C.
command -v cc >/dev/null || missing="gcc libc6-dev"
command -v nginx >/dev/null && [ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] \
    || missing="$missing nginx libnginx-mod-http-lua"
command -v redis-server >/dev/null || missing="$missing redis-server"
if [ -n "$missing" ]; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    # The comparison starts its own servers; the packages must not start theirs.
    $sudo apt-get update
    # shellcheck disable=SC2086
    $sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
fi

cargo build --release -p event-tracker -p event-load
# Below `target`, because the temporary folder may be memory, where syncing costs nothing.
exec target/release/event-load compare --folder target/compare "$@"
