#!/bin/bash
# Measures what many nodes on one PostgreSQL cost it and how they see each other's counts: reads after another
# node counted, cold reads, starts, live dashboards, staleness, dead rows. On Debian or Ubuntu; prints a table as
# Markdown; takes some 25 minutes, ten of them for the dead rows.
#
# Needs Rust (https://rustup.rs) and a C compiler, PostgreSQL's programs and psql (package `postgresql`), and
# curl. PostgreSQL runs in a temporary folder below `target`, as another user where this one is root.
# EVENTS (100000) and HOURS (100, times the events: the rows that are stored), ROUNDS (20) and DEAD_ROWS_MINUTES (10)
# may be set. Arguments: parts of the names of the functions to be measured, of all of them if there are none.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/.."

events=${EVENTS:-100000}
hours=${HOURS:-100}
rounds=${ROUNDS:-20}
pg=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
pg=${pg%/initdb}
for program in cargo cc curl psql "${pg:-/usr/lib/postgresql}/initdb"; do
    command -v "$program" >/dev/null || { echo "fleet-bars.sh: there is no $program" >&2; exit 1; }
done
ulimit -n "$(ulimit -Hn)"
cargo build --release -p event-tracker -p event-load

mkdir -p target/bars
folder=$(mktemp -d "$PWD/target/bars/XXXXXX")
declare -A nodes=() urls=()
cleanup() {
    local -
    set +e
    stop_nodes
    as_postgres "$pg/pg_ctl" -D "$folder/pg" -m immediate stop >/dev/null 2>&1
    rm -rf "$folder"
}

# --- PostgreSQL ---

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
    server=postgres://postgres@127.0.0.1:$pg_port/postgres
    export DATABASE_URL=$server
}

sql() { psql -XqAt -v ON_ERROR_STOP=1 "$DATABASE_URL" "$@"; }

# Ticks of the processor that PostgreSQL used: its living processes, and those that have ended.
postgres_ticks() {
    local main
    main=$(head -n 1 "$folder/pg/postmaster.pid")
    { cat "/proc/$main/stat"; for child in $(pgrep -P "$main"); do cat "/proc/$child/stat" 2>/dev/null || true; done; } |
        sed 's/^.*) //' | awk -v main="$main" 'NR == 1 { t += $14 + $15 } { t += $12 + $13 } END { print t }'
}

# --- the nodes ---

# Starts a node by its number, with settings such as FLUSH__INTERVAL_MS=1000.
start_node() {
    local number=$1
    shift
    : >"$folder/out-$number"
    env "${@/#/EVENT_TRACKER__}" EVENT_TRACKER__LIMITS__EVENTS_MAX=3000000 \
        EVENT_TRACKER__HTTP__RANGE_ROWS_MAX=5000000 \
        target/release/event-tracker serve --listen 127.0.0.1:0 \
        --data-dir "$folder/data-$number" >"$folder/out-$number" 2>"$folder/log-$number" &
    nodes[$number]=$!
    urls[$number]=""
    until [ -n "${urls[$number]}" ]; do
        kill -0 "${nodes[$number]}" 2>/dev/null || { cat "$folder/log-$number" >&2; exit 1; }
        sleep 0.02
        urls[$number]=$(grep -o 'http://[0-9.:]*' "$folder/out-$number" | head -n 1 || true)
    done
}

stop_node() {
    [ -n "${nodes[$1]:-}" ] || return 0
    kill "${nodes[$1]}" && wait "${nodes[$1]}" || true
    unset "nodes[$1]"
}

stop_nodes() {
    local number
    for number in "${!nodes[@]}"; do stop_node "$number"; done
}

seconds() { curl -fsS -o /dev/null -w '%{time_total}\n' "$@"; }

# Seconds that a look at the dashboard takes; signs in first, which is not counted.
sign_in() {
    curl -fsS -o /dev/null -c "$folder/cookies-$1" -H "Origin: ${urls[$1]}" \
        -d 'user=bars&password=correct-horse-of-bars' "${urls[$1]}/admin/login"
}
look() { seconds -b "$folder/cookies-$1" "${urls[$1]}/admin/"; }

# --- numbers ---

calc() { awk "BEGIN { printf \"%.2f\", $1 }"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
row() { printf '| %s | %s | %s |\n' "$@" | tee -a "$folder/table" >&2; }
milliseconds() { calc "$(median) * 1e3"; }

# --- what is stored ---

# The hours that all events were counted in end with the last one; in the hour before them a hundred were.
last_hour=$(($(date +%s) / 3600 - 1))
sparse_hour=$((last_hour - hours))
as_hour() { date -u -d "@$(($1 * 3600))" +%Y%m%d%H; }

# Rows as if a node had counted them: the books balance.
store_rows() {
    start_node 0
    stop_node 0
    sql -v last="$last_hour" -v hours="$hours" -v events="$events" <<-'SQL'
		truncate hourly_counts, event_totals, hour_totals, deltas, folded;
		-- In the order in which they are counted.
		insert into hourly_counts select 'event-' || lpad(e::text, 16, '0'), h, 1 + (e + h) % 100
		from generate_series(0, :events - 1) e, generate_series(:last - :hours + 1, :last) h order by h, e;
		insert into hourly_counts select 'event-' || lpad(e::text, 16, '0'), :last - :hours, 1 + e
		from generate_series(0, 99) e;
		insert into event_totals select event, sum(count), min(hour), max(hour) from hourly_counts group by event;
		insert into hour_totals select hour, sum(count) from hourly_counts group by hour;
		truncate ledger;
		insert into ledger (writer, last_seq, total)
		select decode(md5('bars'), 'hex'), 1, sum(total) from event_totals;
		update retired_writers set batches = 1, total = (select sum(total) from event_totals);
	SQL
	sql -c 'vacuum analyze' -c checkpoint
    echo correct-horse-of-bars |
        target/release/event-tracker create-superuser --user bars --password-stdin >/dev/null
}

# --- the measurements ---

after_another_node() {
    start_node 0
    start_node 1
    sign_in 0
    local name what quiet after
    local hour_24=$((last_hour - 23))
    # The node knows a name that is new to it by then, and both know each other.
    for what in unique "?start_date=$(as_hour "$last_hour")&end_date=$(as_hour "$last_hour")" \
        "?start_date=$(as_hour "$hour_24")&end_date=$(as_hour "$last_hour")" overview; do
        read_one() { if [ "$what" = overview ]; then look 0; else
            seconds "${urls[0]}/api/events${what/#unique//unique}"; fi; }
        count_one() { curl -fsS -o /dev/null -X POST \
            "${urls[1]}/api/events/event-$(printf %016d $((RANDOM % events)))?ack=store"; }
        read_one >/dev/null
        count_one
        sleep 0.2
        read_one >/dev/null
        for _ in $(seq "$rounds"); do
            sleep 0.2
            read_one >>"$folder/quiet"
            count_one
            sleep 0.2
            read_one >>"$folder/after"
        done
        quiet=$(milliseconds <"$folder/quiet") after=$(milliseconds <"$folder/after")
        rm "$folder/quiet" "$folder/after"
        case $what in
            unique | overview) name=$what ;;
            *$(as_hour "$hour_24")*) name="24 h" ;;
            *) name="1 h" ;;
        esac
        row "$name, after another node counted; without it" "≤ $(calc "2 * $quiet + 2") ms" "$after; $quiet ms"
    done
    stop_nodes
}

cold() {
    local number what
    for number in $(seq 5); do
        for what in "$last_hour" "$sparse_hour" overview; do
            start_node 0
            sign_in 0
            if [ "$what" = overview ]; then look 0; else
                seconds "${urls[0]}/api/events?start_date=$(as_hour "$what")&end_date=$(as_hour "$what")"; fi \
                >>"$folder/cold-$what"
            stop_node 0
        done
    done
    row "cold: 1 hour of $events events" "≤ $(calc "2e-3 * $events") ms" "$(milliseconds <"$folder/cold-$last_hour") ms"
    row "cold: 1 hour of 100 events" "≤ 200 ms" "$(milliseconds <"$folder/cold-$sparse_hour") ms"
    row "cold: overview" "≤ 1000 ms" "$(milliseconds <"$folder/cold-overview") ms"
}

# Eight nodes, a dashboard that is looked at on each, and twenty counts a second to each.
dashboards() {
    local number others=() before after readers=0
    local pause=60
    for number in $(seq 8); do
        start_node "$number"
        sign_in "$number"
        curl -sSN -o /dev/null -b "$folder/cookies-$number" "${urls[$number]}/admin/live" & others+=($!)
        (while true; do look "$number" >/dev/null || true; sleep $pause; done) & others+=($!)
        (for _ in $(seq 20 2200); do
            printf 'url = "%s/api/events/event-%016d"\nrequest = POST\noutput = /dev/null\n' \
                "${urls[$number]}" $((RANDOM * 3 % events))
        done | curl -sS --rate 20/s -K - >/dev/null 2>&1) & others+=($!)
        readers=$((readers + 1))
    done
    sleep 45
    before=$(postgres_ticks)
    sleep "$pause"
    after=$(postgres_ticks)
    kill "${others[@]}" 2>/dev/null || true
    wait "${others[@]}" 2>/dev/null || true
    row "$readers nodes with a live dashboard each, 160 counts/s: PostgreSQL" "≤ 5 % of a core" \
        "$(calc "($after - $before) * 100 / $(getconf CLK_TCK) / $pause") %"
    stop_nodes
}

# From the start of the process to the first answer, with a million events.
starts() {
    sql <<-'SQL'
		create database starts;
	SQL
    DATABASE_URL=${server%/*}/starts
    local began number
    start_node 0
    stop_node 0
    sql -v last="$last_hour" <<-'SQL'
		insert into hourly_counts select 'event-' || lpad(e::text, 16, '0'), :last, 1 from generate_series(0, 999999) e;
		insert into event_totals select event, count, hour, hour from hourly_counts;
		insert into hour_totals select hour, sum(count) from hourly_counts group by hour;
		insert into ledger (writer, last_seq, total) values (decode(md5('bars'), 'hex'), 1, 1000000);
		update retired_writers set batches = 1, total = 1000000;
	SQL
    sql -c 'vacuum analyze'
    for number in $(seq 5); do
        began=$EPOCHREALTIME
        start_node 0
        curl -fsS -X POST -o /dev/null -w '%{http_code}\n' "${urls[0]}/api/events/event-$(printf %016d "$number")/1" |
            grep -qx 200 || echo "fleet-bars.sh: a known event passed for new" >&2
        calc "$EPOCHREALTIME - $began" >>"$folder/starts"
        echo >>"$folder/starts"
        stop_node 0
    done
    row "start with 1,000,000 events, until the first answer" "≤ 1.5 s" "$(median <"$folder/starts") s"
    DATABASE_URL=$server
}

fleet() { target/release/event-load fleet --database-url "$server" --folder "$folder" --json "$@" >"$folder/report"; }
reported() { sql -v path="$1" -v report="$(cat "$folder/report")" <<<"select :'report'::json #>> :'path'"; }

fleets() {
    fleet
    cat "$folder/report"
    fleet --shared false
    cat "$folder/report"
    fleet --nodes 1 --counters 5000 --flush-interval-ms 100
    cat "$folder/report"
    fleet --nodes 2 --counters 20000 --flush-interval-ms 1000
    cat "$folder/report"
}

# Rows that are dead in the tables of eight nodes that count, each minute.
dead_rows() {
    local database
    (sleep $((${DEAD_ROWS_MINUTES:-10} * 60 + 30)) & wait) &
    fleet --seconds $((${DEAD_ROWS_MINUTES:-10} * 60)) &
    local running=$!
    while kill -0 $running 2>/dev/null; do
        sleep 60
        database=$(sql -c "select datname from pg_database where datname not in ('postgres', 'starts') and not datistemplate limit 1")
        [ -n "$database" ] || break
        DATABASE_URL=${server%/*}/$database sql -F ' ' -c \
            "select relname, n_dead_tup, n_live_tup, pg_total_relation_size(relid) / 1024 from pg_stat_user_tables where n_dead_tup > 0 order by 1" |
            awk -v minute=$((++minute)) '{ printf "%s%s %d/%d %d KiB", NR == 1 ? minute " min: " : "; ", $1, $2, $3, $4 } END { print "" }' || true
    done | tee -a "$folder/dead" >&2
    wait $running
}

trap cleanup EXIT
start_postgres
row "bar" "to reach" "measured"
row "---" "---" "---"
store_rows
for measurement in after_another_node cold dashboards starts fleets dead_rows; do
    wanted=$([ $# -eq 0 ] && echo yes || true)
    for part in "$@"; do [[ $measurement != *"$part"* ]] || wanted=yes; done
    [ -z "$wanted" ] || "$measurement"
done
echo "Measured $(date -u +%Y-%m-%d) on $(nproc) cores, Linux $(uname -r)."
echo
cat "$folder/table"
