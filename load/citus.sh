#!/bin/bash
# Runs the tests that need a Citus cluster: starts a coordinator and two workers on loopback, as Citus makes them,
# with its own certificate, and removes them in the end. Needs Rust, PostgreSQL's programs with Citus 12 or later
# installed among them, and psql. Arguments go to the test program. With SERVE=1 it runs no tests but leaves the
# cluster up until it is interrupted, and says how to reach it.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/.."

fail() {
    echo "citus.sh: $1" >&2
    exit 1
}
for program in cargo psql; do
    command -v "$program" >/dev/null || fail "there is no $program"
done
pg=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
pg=${pg%/initdb}
[ -n "$pg" ] || fail "there is no initdb: install the package postgresql"
[ -e "$("$pg/pg_config" --sharedir 2>/dev/null)/extension/citus.control" ] || fail "Citus is not installed for $pg"

as_postgres() {
    if [ "$(id -u)" -ne 0 ]; then "$@"
    elif id postgres >/dev/null 2>&1; then runuser -u postgres -- "$@"
    else runuser -u nobody -- "$@"; fi
}

folder=$(mktemp -d)
chmod 755 "$folder"
cleanup() {
    for node in "$folder"/node-*; do
        as_postgres "$pg/pg_ctl" -D "$node" -m immediate stop >/dev/null 2>&1 || true
    done
    rm -rf "$folder"
}
trap cleanup EXIT

port=$(shuf -i 20000-30000 -n 1)
url() { echo "postgres://postgres@127.0.0.1:$((port + $1))/postgres"; }
sql() { psql -XqAt -v ON_ERROR_STOP=1 "$(url "$1")" -c "$2" >/dev/null; }

for number in 0 1 2; do
    node=$folder/node-$number
    install -d -m 700 "$node"
    [ "$(id -u)" -ne 0 ] || chown "$(as_postgres id -un)" "$node"
    as_postgres "$pg/initdb" -A trust -U postgres -E UTF8 --locale C -D "$node" >/dev/null
    printf '%s\n' "port = $((port + number))" "listen_addresses = '127.0.0.1'" "unix_socket_directories = ''" \
        "shared_preload_libraries = 'citus'" "max_connections = 300" "max_prepared_transactions = 300" \
        >>"$node/postgresql.conf"
    as_postgres "$pg/pg_ctl" -w -D "$node" -l "$node/log" start >/dev/null || fail "$(tail -n 5 "$node/log")"
    sql "$number" 'create extension citus'
done
sql 0 "select citus_set_coordinator_host('127.0.0.1', $port)"
sql 0 "select citus_add_node('127.0.0.1', $((port + 1)))"
sql 0 "select citus_add_node('127.0.0.1', $((port + 2)))"
sql 0 "select citus_set_node_property('127.0.0.1', $port, 'shouldhaveshards', false)"
CITUS_URL=$(url 0)
export CITUS_URL

if [ -n "${SERVE:-}" ]; then
    echo "CITUS_URL=$CITUS_URL"
    sleep infinity
fi
cargo test --test it -- --ignored citus "$@"
