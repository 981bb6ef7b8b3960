# What down.sh and node-down.sh share: stopping a server by its pid file. Sourced, with DIR set.

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
