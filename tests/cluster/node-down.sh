#!/usr/bin/env bash
# node-down.sh DIR: stops what node-up.sh started for DIR, its containers too, and unmounts what lies below $LAB/node.
set -euo pipefail

[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
[ -d "$1" ] || exit 0
HERE=$(cd "$(dirname "$0")" && pwd)
DIR=$(cd "$1" && pwd)
LAB=${LAB:-$HOME/.cache/stillpoint-cluster}
NODE=$LAB/node
SOCKET=$NODE/containerd/socket
. "$HERE/stop.sh"

containers() { ctr --address "$SOCKET" --namespace k8s.io "$@" 2>/dev/null; }

remove_containers() {
  local id deadline=$((SECONDS + 10))
  [ -S "$SOCKET" ] || return 0
  for id in $(containers tasks ls -q); do containers tasks kill -s KILL -a "$id" || true; done
  while containers tasks ls | grep -q RUNNING && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
  for id in $(containers tasks ls -q); do containers tasks delete -f "$id" >/dev/null || true; done
  for id in $(containers containers ls -q); do containers containers delete "$id" || true; done
}

stop kubelet
remove_containers
stop containerd
awk -v below="$NODE/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
  while read -r mount; do umount "$mount" || umount -l "$mount"; done
! mountpoint -q "$NODE" || umount "$NODE"
find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} \; 2>/dev/null || true
# kubelet writes here whatever its root is; a link whose log is gone is one of ours
find -L /var/log/containers -type l -delete 2>/dev/null || true
rm -rf --one-file-system "$NODE"
