#!/bin/bash
# Measures what `compare.sh` does not: flush, reads, memory and idling, against the bars that this service
# is held to, on Debian or Ubuntu. Prints a table as Markdown; takes some five minutes.
#
# Needs Rust (https://rustup.rs) and a C compiler, PostgreSQL's programs and psql (package `postgresql`), and
# curl. PostgreSQL runs in a temporary folder below `target`, as another user where this one is root.
# ROUNDS (5) and STORED_HOURS (1000, times 10,000 events: the rows that are stored) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-5}
stored_hours=${STORED_HOURS:-1000}
source load/bars-common.sh

service=""
cleanup() {
    stop_service
    stop_postgres
    rm -rf "$folder"
}

# --- the service ---

# Starts it anew on the same store, with settings such as FLUSH__INTERVAL_MS=1000.
start_service() {
    stop_service
    : >"$folder/out"
    env "${@/#/EVENT_TRACKER__}" target/release/event-tracker serve --listen 127.0.0.1:0 \
        --data-dir "$folder/data" >"$folder/out" 2>"$folder/log" &
    service=$!
    url=""
    until [ -n "$url" ]; do
        kill -0 "$service" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
        sleep 0.1
        url=$(grep -o 'http://[0-9.:]*' "$folder/out" | head -n 1 || true)
    done
}

stop_service() {
    [ -z "$service" ] || { kill "$service" && wait "$service" || true; }
    service=""
}

load() {
    target/release/event-load run "$@" --target "$url" --json >"$folder/report" \
        || echo "bars.sh: not all is well in $1: errors $(errors), exact: $(reported '{verification,exact}')" >&2
}

errors() {
    sql -v report="$(cat "$folder/report")" <<-'SQL'
		select jsonb_agg(phase -> 'errors') from json_array_elements(:'report'::json -> 'phases') phase
	SQL
}

# A value of the last report, such as {phases,0,latency,p99_us}.
reported() {
    sql -v path="$1" -v report="$(cat "$folder/report")" <<<"select :'report'::json #>> :'path'"
}

# Resident memory of the service, in bytes.
resident() { awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$service/status"; }

# --- the measurements ---

idle() {
    start_service
    sleep 2
    local before after
    before=$(awk '{ print $14 + $15 }' "/proc/$service/stat")
    sleep 10
    after=$(awk '{ print $14 + $15 }' "/proc/$service/stat")
    row "idle: memory" "≤ 25 MB" "$(calc "$(resident) / 1e6") MB"
    row "idle: processor" "not measurable" "$(((after - before) * 1000 / $(getconf CLK_TCK))) ms in 10 s"
}

idle_connections() {
    start_service HTTP__CONNECTIONS_MAX=12000
    curl -fsS -o /dev/null -X POST "$url/api/events/warm"
    local before after socket sockets=() address=${url#http://}
    before=$(resident)
    for _ in $(seq 10000); do
        exec {socket}<>"/dev/tcp/${address%:*}/${address#*:}"
        printf 'POST /api/events/idle HTTP/1.1\r\nhost: a\r\n\r\n' >&"$socket"
        read -r -u "$socket"
        sockets+=("$socket")
    done
    after=$(resident)
    for socket in "${sockets[@]}"; do exec {socket}>&-; done
    row "10,000 idle connections, after a request each" "≤ 12 KB each" "$(calc "($after - $before) / 1e7") KB each"
}

live_counters() {
    start_service FLUSH__INTERVAL_MS=3600000 LIMITS__EVENTS_MAX=2000000
    local before drawn
    before=$(resident)
    load bars-live --prefix event- --no-verify
    # Names are drawn: some of the million are not among them.
    drawn="($(reported '{phases,1,ok}') + $(reported '{phases,2,ok}')) / 1e6"
    row "a live counter (1 million, names of 16 bytes, with its name)" "≤ 100 bytes" \
        "$(calc "($(resident) - $before) / 1e6 / (1 - exp(-$drawn))") bytes"
    row "CPU of a POST: 1 million live counters ÷ 10" "≤ 1.3" \
        "$(calc "$(reported '{phases,2,server_cpu_us_per_request}') / $(reported '{phases,0,server_cpu_us_per_request}')")"
    # Not into the store: the next measurements begin with an empty one.
    { kill -9 "$service" && wait "$service"; } 2>/dev/null || true
    service=""
    rm -rf "$folder/data"
}

# Adds the log to the tables of counts, which is not left to the service here. Gives the milliseconds.
fold_now() {
    local began=$EPOCHREALTIME
    target/release/event-tracker fold >/dev/null
    calc "($EPOCHREALTIME - $began) * 1e3"
}

# Both tables as a fold writes them, from and into copies: prepares it for what begins with a prefix.
prepare_bare_flush() {
    fold_now >/dev/null
    sql >/dev/null <<-SQL
		drop table if exists batch;
		create table batch as select * from hourly_counts where event like '$1%' order by event, hour;
		analyze batch;
		create table if not exists bare_counts (like hourly_counts including all) with (fillfactor = 80);
		create table if not exists bare_totals (like event_totals including all) with (fillfactor = 80);
	SQL
}

# The milliseconds of the statements and the commit.
bare_flush() {
    sql <<-'SQL' | awk '/^Time:/ { sum += $2 } END { print sum }'
		\timing on
		begin;
		insert into bare_counts as stored (event, hour, count) select * from batch
		on conflict (event, hour) do update set count = stored.count + excluded.count;
		insert into bare_totals as stored (event, total, first_hour, last_hour)
		select event, count, hour, hour from batch
		on conflict (event) do update set total = stored.total + excluded.total,
		    first_hour = least(stored.first_hour, excluded.first_hour),
		    last_hour = greatest(stored.last_hour, excluded.last_hour);
		commit;
	SQL
}

# Returns when the store has what is pending.
flush_now() { curl -fsS -o /dev/null -X POST "$url/api/events/last?ack=store"; }

# The p99 of a second of posts, alone or with something beside it that begins shortly after them.
p99_of_posts() {
    local beside=""
    if [ $# -gt 1 ]; then (sleep 0.2; "${@:2}" >/dev/null) & beside=$!; fi
    load "$1" --no-verify
    [ -z "$beside" ] || wait "$beside"
    reported '{phases,0,latency,p99_us}'
}

flush() {
    start_service FLUSH__INTERVAL_MS=3600000 STORE__FOLD_INTERVAL_MS=3600000 LIMITS__EVENTS_MAX=10000000 LOG__LEVEL=info,event_tracker::flusher=debug LOG__FORMAT=json
    local round posts quiet ours bare folded
    for round in $(seq "$rounds"); do
        load bars-fill --prefix "flush-$round-"
        flush_now
        ours=$(grep -o '"rows":1000[0-9]*.*' "$folder/log" | tail -n 1 | grep -o '"duration_ms":[0-9]*')
        folded=$(fold_now)
        prepare_bare_flush "flush-$round-"
        bare=$(bare_flush)
        echo "${ours#*:} $bare $folded" >>"$folder/flushes"
    done
    row "flush of 100,000 new counters" "≤ 150 ms" "$(cut -d ' ' -f 1 "$folder/flushes" | median) ms"
    row "fold of 100,000 new counters, by the command" "≤ 1.2 × bare" \
        "$(calc "$(awk '{ print $3 / $2 }' "$folder/flushes" | median)") × ($(cut -d ' ' -f 3 "$folder/flushes" | median) ms)"
    for posts in bars-posts bars-posts-closed; do
        for round in $(seq "$rounds"); do
            load bars-fill --prefix "$posts-$round-"
            quiet=$(p99_of_posts $posts)
            ours=$(p99_of_posts $posts flush_now)
            prepare_bare_flush "$posts-$round-"
            bare=$(p99_of_posts $posts bare_flush)
            calc "$ours / $quiet"; echo -n " "; calc "$bare / $quiet"; echo " ${quiet%.*}"
        done >"$folder/$posts"
        case $posts in *closed) how="64 connections, closed loop" ;; *) how="open loop, 5,000/s" ;; esac
        row "p99 of posts meanwhile, $how" "≤ 1.5 × quiet" \
            "$(cut -d ' ' -f 1 "$folder/$posts" | median) × ($(cut -d ' ' -f 3 "$folder/$posts" | median) µs quiet)"
        row "the same while psql runs the bare statements" "" "$(cut -d ' ' -f 2 "$folder/$posts" | median) ×"
    done
}

dashboards() {
    start_service FLUSH__INTERVAL_MS=1000
    load dashboards
    row "20,000/s, flush each second, 50 polls/s, 1 picture/s: p99" "≤ 2 ms" "$(calc "$(reported '{phases,0,latency,p99_us}') / 1e3") ms"
    row "the same: p99.9" "≤ 10 ms" "$(calc "$(reported '{phases,0,latency,p99_9_us}') / 1e3") ms"
}

# Rows as if a node had counted them: the books balance.
store_rows() {
    sql -v hours="$stored_hours" <<-'SQL'
		truncate hourly_counts, event_totals, hour_totals, deltas, folded;
		insert into hourly_counts select 'event-' || lpad(e::text, 4, '0'), 430000 + h, 1 + (e + h) % 100
		from generate_series(0, 9999) e, generate_series(0, :hours - 1) h;
		insert into hourly_counts select 'event-' || lpad(e::text, 4, '0'), 394464 + h, 1 + (e + h) % 100
		from generate_series(0, 999) e, generate_series(0, 23) h;
		insert into event_totals select event, sum(count), min(hour), max(hour) from hourly_counts group by event;
		insert into hour_totals select hour, sum(count) from hourly_counts group by hour;
		truncate ledger;
		insert into ledger (writer, last_seq, total)
		select decode(md5('bars'), 'hex'), 1, sum(total) from event_totals;
		update retired_writers set batches = 1, total = (select sum(total) from event_totals);
		analyze;
	SQL
}

reads() {
    stop_service
    # Its kept segments would be delivered again to a store whose log is emptied.
    rm -rf "$folder/data"
    store_rows
    start_service
    local number day
    curl -fsS -o /dev/null "$url/api/events/unique"
    for _ in $(seq 20); do
        curl -fsS -o /dev/null -X POST "$url/api/events/event-0007"
        # Longer than the service takes its last look at the store for current.
        sleep 0.15
        seconds "$url/api/events/unique"
    done >"$folder/unique"
    local rows=$((stored_hours * 10000))
    row "unique: 10,000 events, $rows rows, after a change" "≤ 5 ms" "$(calc "$(median <"$folder/unique") * 1e3") ms"
    for _ in $(seq 20); do
        sleep 0.15
        seconds "$url/api/events?start_date=2015010100&end_date=2015010123"
    done >"$folder/range"
    row "24 hours of 1,000 events" "≤ 20 ms" "$(calc "$(median <"$folder/range") * 1e3") ms"
    day=$(date -u -d "@$((430000 * 3600))" +%Y%m%d)
    for number in $(seq 1000 1019); do
        seconds "$url/api/events/histogram/event-$number/$day"
    done >"$folder/pictures"
    row "histogram PNG, cold" "≤ 10 ms" "$(calc "$(median <"$folder/pictures") * 1e3") ms"
    local round phase
    for round in $(seq "$rounds"); do
        load bars-reads
        for phase in 1 2; do
            calc "$(reported "{phases,$phase,server_cpu_us_per_request}") / $(reported '{phases,0,server_cpu_us_per_request}')"
            echo
        done | paste - - >>"$folder/cpu"
    done
    row "CPU of an unchanged poll (304)" "≤ 1.3 × a POST" "$(cut -f 1 "$folder/cpu" | median) ×"
    row "CPU of a histogram PNG, cached" "≤ 1.5 × a POST" "$(cut -f 2 "$folder/cpu" | median) ×"
}

trap cleanup EXIT
start_postgres
row "bar" "wanted" "measured"
row "---" "---" "---"
idle
idle_connections
# Before others fill the store with more names than one node takes, and more rows than a range may hold.
dashboards
live_counters
flush
reads
echo "Measured $(date -u +%Y-%m-%d) on $(nproc) cores, Linux $(uname -r); medians of $rounds rounds where there are several."
echo
cat "$folder/table"
