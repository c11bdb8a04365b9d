#!/bin/sh
# Durable creates of 1 KB: PostgreSQL, which writes the row and an outbox row in one synchronous transaction
# (pgbench, prepared protocol), beside Lanekeeper over HTTP, with the same connections, turn by turn.
#
#   loadtest/peers/postgres/compare.sh [CONNECTIONS…]     default: 64 256
#
# SECONDS_EACH (10) is the time of one measurement, ROUNDS (3) how often each is taken; the median is shown.
# Needs PostgreSQL's server programs and pgbench, `cargo build --release --workspace`, and nothing else: the
# database is made in a temporary directory, listens on a socket in it, and is gone afterwards.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
seconds=${SECONDS_EACH:-10}
rounds=${ROUNDS:-3}
[ $# -gt 0 ] || set -- 64 256

bin=${PG_BIN:-}
for folder in "$bin" /usr/lib/postgresql/*/bin "$(dirname "$(command -v postgres || echo /)")"; do
  [ -x "$folder/initdb" ] && bin=$folder && break
done
[ -x "$bin/initdb" ] || { echo "error: no initdb; set PG_BIN to the folder of PostgreSQL's programs" >&2; exit 64; }
load=$root/target/release/lanekeeper-loadtest
[ -x "$load" ] || { echo "error: build first: cargo build --release --workspace" >&2; exit 64; }

work=$(mktemp -d)
# The server refuses to run as root.
as=""
if [ "$(id -u)" = 0 ]; then
  id postgres >/dev/null 2>&1 || { echo "error: as root this needs a user \`postgres\`" >&2; exit 64; }
  chown postgres "$work"
  as="setpriv --reuid=postgres --regid=postgres --clear-groups"
fi
finish() {
  $as "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT INT TERM

$as "$bin/initdb" -D "$work/data" -A trust -U postgres >/dev/null
cat >>"$work/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$work'
max_connections = 1100
shared_buffers = 1GB
fsync = on
synchronous_commit = on
full_page_writes = on
max_wal_size = 4GB
CONF
$as "$bin/pg_ctl" -D "$work/data" -w -l "$work/log" start >/dev/null
sql() { psql -q -h "$work" -U postgres -d postgres -v ON_ERROR_STOP=1 "$@"; }
sql -c "CREATE TABLE loads (lane text, id text, body jsonb NOT NULL, PRIMARY KEY (lane, id));
        CREATE TABLE outbox (position bigserial PRIMARY KEY, lane text NOT NULL, id text NOT NULL, type text NOT NULL, body jsonb NOT NULL);"
filling=$(head -c 900 /dev/zero | tr '\0' 'x')

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
postgres() {
  pgbench -n -M prepared -h "$work" -U postgres -c "$1" -j 2 -T "$seconds" -D "filling=$filling" -f "$here/create.sql" postgres |
    awk '/^tps/ { print int($3) }'
}
lanekeeper() {
  "$load" peak --work creates --connections "$1" --duration "${seconds}s" --json 2>/dev/null |
    awk -F'[:,]' '/"per_second"/ { print int($2) }'
}

printf '%12s %14s %14s %8s\n' connections 'postgres /s' 'lanekeeper /s' ratio
worst=0
for connections in "$@"; do
  : >"$work/p"
  : >"$work/l"
  round=0
  while [ "$round" -lt "$rounds" ]; do
    sql -c "TRUNCATE loads, outbox; CHECKPOINT;"
    postgres "$connections" >>"$work/p"
    lanekeeper "$connections" >>"$work/l"
    round=$((round + 1))
  done
  p=$(median <"$work/p")
  l=$(median <"$work/l")
  awk -v c="$connections" -v p="$p" -v l="$l" 'BEGIN { printf "%12d %14d %14d %8.2f\n", c, p, l, l / p; exit l < p }' || worst=1
done
exit $worst
