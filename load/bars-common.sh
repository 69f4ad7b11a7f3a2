# For `bars.sh` and `fleet-bars.sh`, which source it in the project's folder: their tools, a PostgreSQL of their own
# in `$folder`, and how they calculate and print.

export LC_ALL=C.UTF-8
pg=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
pg=${pg%/initdb}
for program in cargo cc curl psql "${pg:-/usr/lib/postgresql}/initdb"; do
    command -v "$program" >/dev/null || { echo "${0##*/}: there is no $program" >&2; exit 1; }
done
ulimit -n "$(ulimit -Hn)"
cargo build --release -p event-tracker -p event-load

mkdir -p target/bars
folder=$(mktemp -d "$PWD/target/bars/XXXXXX")

as_postgres() {
    if [ "$(id -u)" -ne 0 ]; then "$@"
    elif id postgres >/dev/null 2>&1; then runuser -u postgres -- "$@"
    else runuser -u nobody -- "$@"; fi
}

start_postgres() {
    install -d -m 700 "$folder/pg"
    [ "$(id -u)" -ne 0 ] || chown "$(as_postgres id -un)" "$folder/pg"
    chmod 755 "$folder"
    pg_port=$(shuf -i 20000-30000 -n 1)
    as_postgres "$pg/initdb" -A trust -U postgres -E UTF8 --locale C -D "$folder/pg" >/dev/null
    local options="-p $pg_port -h 127.0.0.1 -k ''"
    as_postgres "$pg/pg_ctl" -w -D "$folder/pg" -l "$folder/pg/log" -o "$options" start >/dev/null
    export PGOPTIONS='-c client_min_messages=warning'
    export DATABASE_URL=postgres://postgres@127.0.0.1:$pg_port/postgres
}

sql() { psql -XqAt -v ON_ERROR_STOP=1 "$DATABASE_URL" "$@"; }

stop_postgres() { as_postgres "$pg/pg_ctl" -D "$folder/pg" -m immediate stop >/dev/null 2>&1 || true; }

# Seconds that a request takes, with its connection.
seconds() { curl -fsS -o /dev/null -w '%{time_total}\n' "$@"; }

calc() { awk "BEGIN { printf \"%.2f\", $1 }"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
row() { printf '| %s | %s | %s |\n' "$@" | tee -a "$folder/table" >&2; }
