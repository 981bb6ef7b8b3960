#!/usr/bin/env bash
# down.sh DIR: stops what up.sh started for DIR, by its pid files. Data and logs stay: remove DIR yourself.
set -euo pipefail

[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
[ -d "$1" ] || exit 0
HERE=$(cd "$(dirname "$0")" && pwd)
DIR=$(cd "$1" && pwd)
. "$HERE/stop.sh"

if [ -f "$DIR/pid/containerd" ]; then "$HERE/node-down.sh" "$DIR"; fi
for name in kube-controller-manager kube-apiserver etcd; do stop "$name"; done
