#!/usr/bin/env bash
# images.sh [PROGRAM]: puts the images together that the tests run, without a registry; they lie in $LAB/img. With
# PROGRAM, a built stillpoint, also localhost/stillpoint:test, which a node that is up gets at once. See README.md.
set -euo pipefail

LAB=${LAB:-$HOME/.cache/stillpoint-cluster}
HERE=$(cd "$(dirname "$0")" && pwd)
SOCKET=$LAB/node/containerd/socket

main() {
  mkdir -p "$LAB/img"
  exec 9>"$LAB/img/lock"
  flock 9
  [ -f "$LAB/img/pause.tar" ] || make_pause
  [ -f "$LAB/img/busybox.tar" ] || make_busybox
  if [ $# -gt 0 ]; then make_stillpoint "$1"; fi
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
  busybox_root "$root"
  python3 "$HERE/image.py" "$root" localhost/busybox:1 "$LAB/img/busybox.tar" /bin/sh
  rm -rf "$root"
}

# The program with the libraries that it was linked with, on top of busybox for whoever looks into a pod.
make_stillpoint() {
  local program=$1 root library
  if [ -f "$LAB/img/stillpoint.tar" ] && [ "$LAB/img/stillpoint.tar" -nt "$program" ]; then return; fi
  root=$(mktemp -d)
  busybox_root "$root"
  mkdir -p "$root"/{usr/local/bin,etc/ssl/certs}
  strip -o "$root/usr/local/bin/stillpoint" "$program"
  # the loader and the libraries are found where they are on this machine
  for library in $(ldd "$program" | grep -o '/[^ ]*'); do
    install -D "$library" "$root$library"
  done
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true
  python3 "$HERE/image.py" "$root" localhost/stillpoint:test "$LAB/img/stillpoint.tar" /usr/local/bin/stillpoint
  rm -rf "$root"
  if [ -S "$SOCKET" ]; then
    ctr --address "$SOCKET" --namespace k8s.io images import "$LAB/img/stillpoint.tar" >/dev/null
  fi
}

busybox_root() { # FOLDER
  mkdir -p "$1"/{bin,dev,etc,proc,run,sys,tmp,var}
  chmod 1777 "$1/tmp"
  cp "$(command -v busybox)" "$1/bin/busybox"
  chroot "$1" /bin/busybox --install -s /bin
  echo 'root:x:0:0::/:/bin/sh' >"$1/etc/passwd"
  echo 'root:x:0:' >"$1/etc/group"
}

main "$@"
