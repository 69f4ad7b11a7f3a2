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
cd "$(dirname "$0")/.."

events=${EVENTS:-100000}
hours=${HOURS:-100}
rounds=${ROUNDS:-20}
source load/bars-common.sh

declare -A nodes=() urls=()
cleanup() {
    local -
    set +e
    stop_nodes
    stop_postgres
    rm -rf "$folder"
}

# Ticks of the processor that PostgreSQL used: its living processes, and those that have ended.
postgres_ticks() {
    local main
    main=$(head -n 1 "$folder/pg/postmaster.pid")
    { cat "/proc/$main/stat"; for child in $(pgrep -P "$main"); do cat "/proc/$child/stat" 2>/dev/null || true; done; } |
        sed 's/^.*) //' | awk 'NR == 1 { t += $14 + $15 } { t += $12 + $13 } END { print t }'
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

sign_in() {
    curl -fsS -o /dev/null -c "$folder/cookies-$1" -H "Origin: ${urls[$1]}" \
        -d 'user=bars&password=correct-horse-of-bars' "${urls[$1]}/admin/login"
}
# Seconds that a look at the dashboard takes.
look() { seconds -b "$folder/cookies-$1" "${urls[$1]}/admin/"; }

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
    local number others=() before after
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
    done
    sleep 45
    before=$(postgres_ticks)
    sleep "$pause"
    after=$(postgres_ticks)
    kill "${others[@]}" 2>/dev/null || true
    wait "${others[@]}" 2>/dev/null || true
    row "8 nodes with a live dashboard each, 160 counts/s: PostgreSQL" "≤ 5 % of a core" \
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

fleet() { target/release/event-load fleet --database-url "$server" --folder "$folder" "$@" >&2; }
fleets() {
    local arguments
    for arguments in "" "--shared false" "--nodes 1 --counters 5000 --flush-interval-ms 100" \
        "--nodes 2 --counters 20000 --flush-interval-ms 1000"; do
        # shellcheck disable=SC2086
        fleet $arguments
    done
}

# The dead rows in the tables of eight nodes that count, each minute.
dead_rows() {
    local database minutes=${DEAD_ROWS_MINUTES:-10} minute=0
    fleet --seconds $((minutes * 60)) &
    local running=$!
    while sleep 60 && kill -0 $running 2>/dev/null; do
        minute=$((minute + 1))
        database=$(sql -c "select datname from pg_database where datname not in ('postgres', 'starts') and not datistemplate limit 1")
        [ -n "$database" ] || break
        DATABASE_URL=${server%/*}/$database sql -c "select '$minute min: ' || string_agg(relname || ' ' || n_dead_tup ||
            '/' || n_live_tup, '; ' order by relname) from pg_stat_user_tables where n_dead_tup > 0" >&2
    done
    wait $running
}

trap cleanup EXIT
start_postgres
server=$DATABASE_URL
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
