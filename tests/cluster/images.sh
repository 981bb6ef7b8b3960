#!/usr/bin/env bash
# images.sh: puts the images together that the tests run, without a registry; they lie in $LAB/img. See README.md.
set -euo pipefail

LAB=${LAB:-$HOME/.cache/stillpoint-cluster}
HERE=$(cd "$(dirname "$0")" && pwd)

main() {
  mkdir -p "$LAB/img"
  exec 9>"$LAB/img/lock"
  flock 9
  [ -f "$LAB/img/pause.tar" ] || make_pause
  [ -f "$LAB/img/busybox.tar" ] || make_busybox
}

# Waits for ever: what holds a pod together, and the one image here without a shell.
make_pause() {
  local root
  root=$(mktemp -d)
  gcc -static -Os -x c -o "$root/pause" - <<'C'
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int s) { _exit(0); }
static void reap(int s) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
C
  python3 "$HERE/image.py" "$root" localhost/pause:3.9 "$LAB/img/pause.tar" /pause
  rm -rf "$root"
}

make_busybox() {
  local root
  root=$(mktemp -d)
  mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp,var}
  chmod 1777 "$root/tmp"
  cp "$(command -v busybox)" "$root/bin/busybox"
  chroot "$root" /bin/busybox --install -s /bin
  echo 'root:x:0:0::/:/bin/sh' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  python3 "$HERE/image.py" "$root" localhost/busybox:1 "$LAB/img/busybox.tar" /bin/sh
  rm -rf "$root"
}

main
