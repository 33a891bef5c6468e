#!/bin/sh
# Take-overs under load: wrk in clear text and h2load with prior knowledge, 100 objects, while new processes
# take over one after the other. Prints what either tool calls an error, and the hit ratio before and after.
#
#   benches/takeover.sh [BINARY [TAKE-OVERS]]     (target/release/larder, 20)
set -eu

binary=$(realpath "${1:-target/release/larder}")
count=${2:-20}
dir=$(mktemp -d)
larder=
load=
# Only what was started here ends; the process that runs now is the one the log named last.
end() {
    for pid in $load $larder; do
        kill "$pid" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap end EXIT

mkdir "$dir/site"
for number in $(seq 0 99); do
    head -c $((1000 + number * 200)) /dev/urandom >"$dir/site/$number.bin"
done
cat >"$dir/larder.toml" <<TOML
[server]
http = ["127.0.0.1:0"]
h2c = true
workers = 2
[cache]
dir = "store"
disk_bytes_max = "256MiB"
memory_bytes_max = "64MiB"
[admin]
listen = "127.0.0.1:0"
[log]
access = "off"
[upstream.main]
backends = ["file:site"]
[[site]]
hosts = ["*"]
upstream = "main"
TOML
cat >"$dir/wrk.lua" <<'LUA'
local n = 0
request = function()
    n = (n * 31 + 7) % 100
    return wrk.format("GET", "/" .. n .. ".bin")
end
done = function(summary)
    local e = summary.errors
    io.write(string.format("wrk: %d requests, errors: connect %d read %d write %d status %d timeout %d\n",
        summary.requests, e.connect, e.read, e.write, e.status, e.timeout))
end
LUA

"$binary" serve --config "$dir/larder.toml" >"$dir/out" 2>"$dir/err" &
larder=$!
ready() {
    while [ "$(grep -c '^ready$' "$dir/out")" -lt "$1" ]; do
        kill -0 "$larder" 2>/dev/null || { cat "$dir/err" >&2; exit 1; }
        sleep 0.05
    done
}
ready 1
front=$(sed -n 's/^listening on //p' "$dir/out" | head -n 1)
admin=$(sed -n 's/^admin on //p' "$dir/out" | head -n 1)
for number in $(seq 0 99); do
    echo "$front/$number.bin"
done >"$dir/urls"
xargs -n 1 curl -sf -o /dev/null <"$dir/urls"

figures() {
    curl -sf "$admin/stats" | tr ',{' '\n\n'
}
figure() {
    sed -n "s/^\"$1\":\([0-9]*\).*/\1/p" "$dir/figures" | head -n 1
}
# The ratio over a second of load, by what the process that serves now has counted.
ratio() {
    figures >"$dir/figures"
    hits=$(figure hits) misses=$(figure misses)
    sleep 1
    figures >"$dir/figures"
    hits=$(($(figure hits) - hits)) misses=$(($(figure misses) - misses))
    echo "$1: $hits hits, $misses misses"
}

seconds=$((count * 2 + 10))
wrk -t 1 -c 32 -d "${seconds}s" -s "$dir/wrk.lua" "$front" >"$dir/wrk" 2>&1 &
load=$!
# Each connection asks for ten at once: a request that h2load has not sent when GOAWAY comes it does not
# send on another connection, as a client would, but calls an error.
while :; do
    h2load -n 40 -c 4 -m 10 -i "$dir/urls" >>"$dir/h2load" 2>&1 || true
done &
load="$load $!"
sleep 1
ratio before
all_misses=0
for take_over in $(seq "$count"); do
    kill -USR2 "$larder"
    ready $((take_over + 1))
    larder=$(sed -n 's/.*handing over to a new process pid=\([0-9]*\).*/\1/p' "$dir/err" | tail -n 1)
    while [ "$(grep -c 'the process before has ended' "$dir/err")" -lt "$take_over" ]; do
        sleep 0.05
    done
    figures >"$dir/figures"
    all_misses=$((all_misses + $(figure misses)))
done
ratio after
echo "take-overs: $count, failed: $(grep -c 'take-over failed' "$dir/err" || true), misses after each: $all_misses"
wait "${load%% *}"
kill "${load##* }" 2>/dev/null || true
tail -n 1 "$dir/wrk"
sed -n 's/^requests: //p' "$dir/h2load" |
    awk -F '[ ,]+' '{done += $5; ok += $7; failed += $9; errored += $11; timeout += $13}
        END {print "h2load: " done " requests, " ok " succeeded, " failed " failed, " errored " errored, " timeout " timeout"}'
