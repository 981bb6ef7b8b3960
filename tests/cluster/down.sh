#!/usr/bin/env bash
# down.sh DIR: stops what up.sh started for DIR, by its pid files. Data and logs stay: remove DIR yourself.
set -euo pipefail

[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
[ -d "$1" ] || exit 0
DIR=$(cd "$1" && pwd)

# A pid is the server's only while its command line names the server and DIR: pids are used again.
ours() { # NAME PID
  local command_line
  command_line=$(tr '\0' ' ' 2>/dev/null <"/proc/$2/cmdline") || return 1
  [[ $command_line == *"$1 "* && $command_line == *"$DIR/"* ]]
}

stop() { # NAME
  local file=$DIR/pid/$1 pid
  [ -f "$file" ] || return 0
  pid=$(cat "$file")
  if ours "$1" "$pid"; then
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do ours "$1" "$pid" || break; sleep 0.1; done
    ! ours "$1" "$pid" || kill -9 "$pid" 2>/dev/null || true
  fi
  rm -f "$file"
}

for name in kube-controller-manager kube-apiserver etcd; do stop "$name"; done
