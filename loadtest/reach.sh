#!/bin/sh
# How fast the harness can be: beside wrk (HTTP/1.1) and h2load (HTTP/2), from one processor,
# against a trivial nginx on another one, in turns, and 5000 connections held at once. Prints
# Markdown.
#
# usage: reach.sh LOADTEST [SECONDS]
#
# Needs two processors, nginx, wrk and h2load (packages nginx-light, wrk, nghttp2-client).
set -eu

loadtest=$1
seconds=${2:-5}
rounds=3
port=${REACH_PORT:-7890}
dir=$(mktemp -d)
server=

finish() {
    [ -z "$server" ] || kill "$server" 2> /dev/null || true
    rm -rf "$dir"
}
trap finish EXIT INT TERM

for tool in nginx wrk h2load taskset; do
    command -v "$tool" > /dev/null || { echo "reach.sh: $tool is missing" >&2; exit 1; }
done

# A server of HTTP/1.1 and one of HTTP/2 by prior knowledge.
cat > "$dir/nginx.conf" << CONF
daemon off;
worker_processes 1;
pid $dir/pid;
error_log $dir/error.log crit;
worker_rlimit_nofile 20000;
events { worker_connections 16000; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    server { listen 127.0.0.1:$port backlog=8192; location / { return 200 "ok\n"; } }
    server {
        listen 127.0.0.1:$((port + 1)) http2 backlog=8192;
        http2_max_concurrent_streams 1000;
        location / { return 200 "ok\n"; }
    }
}
CONF
ulimit -n "$(ulimit -Hn)"
taskset -c 0 nginx -p "$dir" -c "$dir/nginx.conf" &
server=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    "$loadtest" http --url "http://127.0.0.1:$port/" --requests 1 --quiet > /dev/null 2>&1 && break
    sleep 0.3
done

# Each prints requests per second.
ours() {
    taskset -c 1 "$loadtest" http --url "$1" --duration "${seconds}s" --quiet --json "$dir/run.json" \
        --protocol "$2" --concurrency "$3" --streams "$4" > "$dir/run.txt"
    "$loadtest" figure "$dir/run.json" rate
    failed=$("$loadtest" figure "$dir/run.json" error_share)
    [ "$failed" = 0 ] || { echo "reach.sh: an error share of $failed" >&2; exit 1; }
}
with_wrk() {
    taskset -c 1 wrk -t1 -c64 -d"${seconds}s" "http://127.0.0.1:$port/" | awk '/^Requests\/sec/ { print $2 }'
}
with_h2load() {
    taskset -c 1 h2load -t1 -c16 -m10 -D"$seconds" "http://127.0.0.1:$((port + 1))/" \
        | awk '/^finished in/ { gsub(",", ""); print $4 }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { printf "%.0f", v[int((NR + 1) / 2)] }'; }

: > "$dir/wrk"; : > "$dir/h1"; : > "$dir/h2load"; : > "$dir/h2"
round=0
while [ $round -lt $rounds ]; do
    with_wrk >> "$dir/wrk"
    ours "http://127.0.0.1:$port/" h1 64 1 >> "$dir/h1"
    with_h2load >> "$dir/h2load"
    ours "http://127.0.0.1:$((port + 1))/" h2 160 10 >> "$dir/h2"
    round=$((round + 1))
done
many=$(ours "http://127.0.0.1:$port/" h1 5000 1)

share() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
wrk=$(median < "$dir/wrk"); h1=$(median < "$dir/h1")
h2load=$(median < "$dir/h2load"); h2=$(median < "$dir/h2")
cat << TABLE
Requests per second, medians of $rounds rounds of $seconds s in turns, nginx on processor 0, the client on processor 1.

| what | reference | \`loadtest\` | share |
|---|---|---|---|
| HTTP/1.1, 64 connections, beside wrk | $wrk | $h1 | $(share "$h1" "$wrk") |
| HTTP/2, 16 connections x 10 streams, beside h2load | $h2load | $h2 | $(share "$h2" "$h2load") |
| HTTP/1.1, 5000 connections, no failure | | $(printf '%.0f' "$many") | |
TABLE
