#!/bin/sh
# Opens a copy of an SQLite database, looks at all of it, and writes down what was committed.
# $1: the folder of the data, $2: where to write.
set -e
test "$(sqlite3 "$1/app.db" "pragma integrity_check")" = ok
sqlite3 "$1/app.db" "select n from log order by n" >"$2"
