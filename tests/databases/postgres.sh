#!/bin/sh
# Starts PostgreSQL on a copy of its data, looks at every page and index, and writes down what was committed.
# $1: the programs' folder, $2: the folder of the data, $3: where to write.
set -e
data=$2/data
# the copy says that the server runs which it was taken of, and uses its socket
rm -f "$data/postmaster.pid" "$2"/.s.PGSQL.*
# it refuses to run as root, and above the copy is a folder that only root may enter
as="setpriv --reuid postgres --regid postgres --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"
$as "$1/pg_ctl" -s -w -D "$data" -l "$data/copy.log" -o "-k $2 -c listen_addresses=" start || {
  cat "$data/copy.log"
  exit 1
}
trap '$as "$1/pg_ctl" -s -w -D "$data" -m immediate stop' EXIT
"$1/pg_amcheck" --install-missing --heapallindexed --all -U postgres -h "$2"
ask() { "$1/psql" -XqAt -U postgres -h "$2" -c "$3"; }
test "$(ask "$1" "$2" "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from
  pgbench_history)")" = t
ask "$1" "$2" "select n from log order by n" >"$3"
