#!/bin/sh
# Plays a server for the load tool's own tests: checks how it was called, gets ready, and drains when asked to.
[ "$1" = serve ] && [ "$2" = --manifest ] && [ -f "$3" ] && [ "$4" = --data ] || { echo "called as: $*" >&2; exit 64; }
[ "$6 $7 $8 $9" = "--listen 127.0.0.1:0 --admin 127.0.0.1:0" ] || { echo "called as: $*" >&2; exit 64; }
[ -n "$LANEKEEPER_ADMIN_TOKEN" ] && [ -n "$LANEKEEPER_LOADTEST_KEY" ] || { echo "no secrets" >&2; exit 64; }
trap 'kill "$nap"; exit 0' TERM
sleep 60 &
nap=$!
echo "some other line"
echo "ready gateway=http://127.0.0.1:1 admin=http://127.0.0.1:2"
wait
