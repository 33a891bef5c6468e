#!/bin/sh
# Changes of a running larder under load: wrk with HTTP/1.1 and h2load with HTTP/2 (prior knowledge) ask for
# 100 objects without a pause, first while nothing changes, then while changes come one after the other.
#
#   benches/change.sh reload [COUNT]      POST /reload, 100 times: a lifetime, a site and an upstream more or less
#   benches/change.sh takeover [COUNT]    SIGUSR2, 20 times: each time another process takes over
#
# LARDER is the binary (target/release/larder), QUIET the seconds without changes (10), PAUSE those between
# two changes (0.1). Prints what either tool calls an error, and the hit ratio without and with changes by
# what larder counts itself; exits 1 when there was an error or the ratio has fallen by more than one percent.
set -eu

mode=${1:-}
case $mode in
reload) count=${2:-100} ;;
takeover) count=${2:-20} ;;
*)
    sed -n '5,6s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
binary=$(realpath "${LARDER:-target/release/larder}")
quiet=${QUIET:-10}
pause=${PAUSE:-0.1}
dir=$(mktemp -d)
larder=
# Only what was started here ends. What loads ends by itself when it finds that it is over.
end() {
    touch "$dir/over"
    [ -z "$load" ] || wait $load || true
    if [ -n "$larder" ]; then
        kill "$larder" 2>/dev/null || true
        # After a take-over it is not a child of this shell, which cannot wait for it.
        wait "$larder" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$larder" 2>/dev/null || break
            sleep 0.05
        done
    fi
    rm -rf "$dir"
}
load=
trap end EXIT
trap 'exit 1' INT TERM

mkdir "$dir/site" "$dir/other"
for number in $(seq 0 99); do
    head -c $((1000 + number * 200)) /dev/urandom >"$dir/site/$number.bin"
done
config() {
    cat <<TOML
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
heuristic_max = "$1"
TOML
}
config 1d >"$dir/even.toml"
config 12h >"$dir/odd.toml"
cat >>"$dir/odd.toml" <<TOML
[upstream.other]
backends = ["file:other"]
[[site]]
hosts = ["other.test"]
upstream = "other"
TOML
cp "$dir/even.toml" "$dir/larder.toml"
cat >"$dir/wrk.lua" <<'LUA'
local n = 0
request = function()
    n = (n * 31 + 7) % 100
    return wrk.format("GET", "/" .. n .. ".bin")
end
done = function(summary)
    local e = summary.errors
    io.write(string.format("wrk: %d %d %d %d %d %d\n",
        summary.requests, e.status, e.connect, e.read, e.write, e.timeout))
end
LUA

: >"$dir/out"
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

# Connections live for ten seconds, through many reloads.
(
    while ! [ -e "$dir/over" ]; do
        wrk -t 1 -c 32 -d 10s -s "$dir/wrk.lua" "$front" >>"$dir/wrk" 2>&1 || echo "wrk failed" >>"$dir/wrk"
    done
) &
load=$!
# In a take-over the old process sends GOAWAY. h2load calls an error what it has not sent by then and a
# client would send on another connection; so there each connection asks for ten at once, and then for no more.
case $mode in
reload) span="-D 10" ;;
takeover) span="-n 40" ;;
esac
(
    while ! [ -e "$dir/over" ]; do
        # shellcheck disable=SC2086 # an option and its value
        h2load $span -c 4 -m 10 -i "$dir/urls" >>"$dir/h2load" 2>&1 || echo "h2load failed" >>"$dir/h2load"
    done
) &
load="$load $!"

# Adds what was counted since the last look to $hits and $misses.
look() {
    curl -sf "$admin/stats" | tr ',{' '\n\n' >"$dir/stats"
    hits_now=$(sed -n 's/^"hits":\([0-9]*\).*/\1/p' "$dir/stats" | head -n 1)
    misses_now=$(sed -n 's/^"misses":\([0-9]*\).*/\1/p' "$dir/stats" | head -n 1)
    hits=$((hits + hits_now - hits_seen)) misses=$((misses + misses_now - misses_seen))
    hits_seen=$hits_now misses_seen=$misses_now
}
from_now_on() {
    look
    hits=0 misses=0
}
# Hits in a hundred thousand.
ratio() {
    echo $((hits * 100000 / (hits + misses + (hits + misses == 0))))
}
hits=0 misses=0 hits_seen=0 misses_seen=0 refused=0

reload() {
    case $(($1 % 2)) in
    0) cp "$dir/even.toml" "$dir/larder.toml" ;;
    1) cp "$dir/odd.toml" "$dir/larder.toml" ;;
    esac
    if ! curl -sf -X POST -o "$dir/answer" "$admin/reload" || ! grep -q 'other.test' "$dir/answer"; then
        refused=$((refused + 1))
    fi
}
# The process that runs now is the one that the log named last; it begins to count at zero.
takeover() {
    look
    kill -USR2 "$larder"
    ready $(($1 + 1))
    larder=$(sed -n 's/.*handing over to a new process pid=\([0-9]*\).*/\1/p' "$dir/err" | tail -n 1)
    while [ "$(grep -c 'the process before has ended' "$dir/err")" -lt "$1" ]; do
        kill -0 "$larder" 2>/dev/null || { cat "$dir/err" >&2; exit 1; }
        sleep 0.05
    done
    hits_seen=0 misses_seen=0
}

sleep 1
from_now_on
sleep "$quiet"
look
before=$(ratio)
echo "without changes: $hits hits, $misses misses"
from_now_on
for change in $(seq "$count"); do
    $mode "$change"
    sleep "$pause"
done
look
during=$(ratio)
echo "with changes: $hits hits, $misses misses"
touch "$dir/over"
wait $load
load=
refused=$((refused + $(grep -c 'take-over failed' "$dir/err" || true)))
echo "$mode: $count changes, $refused refused or failed; hit ratio in 1/1000 %: $before without, $during with"
awk '/^wrk: / {done += $2; status += $3; connect += $4; read += $5; write += $6; timeout += $7}
    /failed$/ {failed++}
    END {
        print "wrk: " done + 0 " requests, " status + 0 " not 2xx, errors: connect " connect + 0 \
            " read " read + 0 " write " write + 0 " timeout " timeout + 0
        exit !done || failed || status + connect + read + write + timeout > 0
    }' "$dir/wrk" || bad=1
awk -F '[ ,]+' '/^requests: / {done += $6; ok += $8; failed += $10; errored += $12; timeout += $14}
    /^status codes: / {other += $5 + $7 + $9}
    /^h2load failed$/ {broken++}
    END {
        print "h2load: " done + 0 " requests, " other + 0 " not 2xx, " failed + 0 " failed, " errored + 0 \
            " errored, " timeout + 0 " timeout"
        exit !done || broken || other || failed + errored + timeout > 0
    }' "$dir/h2load" || bad=1
[ "$refused" -eq 0 ] || bad=1
[ "$during" -ge $((before - 1000)) ] || bad=1
exit "${bad:-0}"
