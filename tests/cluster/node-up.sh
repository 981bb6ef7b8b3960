#!/usr/bin/env bash
# node-up.sh DIR: gives the cluster of up.sh DIR a node: containerd and kubelet, so that Pods really run. One node per
# machine: its state is in $LAB/node. Needs root; see README.md.
set -euo pipefail

[ $# = 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
HERE=$(cd "$(dirname "$0")" && pwd)
DIR=$(cd "$1" && pwd)
PORT=$(cat "$DIR/port")
. "$HERE/lib.sh"
NODE=$LAB/node
SOCKET=$NODE/containerd/socket

main() {
  [ "$(id -u)" = 0 ] || { echo "node-up.sh: a node needs root" >&2; exit 1; }
  if ! running containerd && [ -S "$SOCKET" ] && ctr --address "$SOCKET" version >/dev/null 2>&1; then
    echo "node-up.sh: another cluster has the node in $NODE; its node-down.sh frees it" >&2
    exit 1
  fi
  "$HERE/images.sh"
  mkdir -p "$NODE"/{containerd,kubelet,cni/bin,cni/conf,plugins}
  # what kubelet mounts must be seen by the containers' runtime
  mountpoint -q "$NODE" || { mount --bind "$NODE" "$NODE" && mount --make-shared "$NODE"; }
  trap 'stop_all $?' EXIT
  certificate kubelet-client ca /O=system:nodes/CN=system:node:127.0.0.1 clientAuth
  certificate kubelet-server ca /CN=127.0.0.1 serverAuth IP:127.0.0.1
  write_kubeconfig "$DIR/kubelet.kubeconfig" kubelet-client
  write_network
  write_containerd_config
  write_kubelet_config
  BIN=/usr/bin start containerd --config "$DIR/containerd.toml"
  await containerd ctr --address "$SOCKET" version
  for image in "$LAB"/img/*.tar; do
    ctr --address "$SOCKET" --namespace k8s.io images import "$image" >>"$DIR/log/import.log" 2>&1
  done
  start kubelet --config="$DIR/kubelet.yaml" --kubeconfig="$DIR/kubelet.kubeconfig" --root-dir="$NODE/kubelet" \
    --hostname-override=127.0.0.1 --cert-dir="$DIR/unused" --container-runtime=remote \
    --container-runtime-endpoint="unix://$SOCKET" --image-service-endpoint="unix://$SOCKET"
  await kubelet ready
  trap - EXIT
  echo "up: node 127.0.0.1"
}

stop_all() {
  [ "$1" = 0 ] || "$HERE/node-down.sh" "$DIR"
}

ready() {
  ask /api/v1/nodes/127.0.0.1 | python3 -c '
import json, sys
conditions = json.load(sys.stdin)["status"]["conditions"]
sys.exit(not any(each["type"] == "Ready" and each["status"] == "True" for each in conditions))' 2>/dev/null
}

# Pods get a loopback device and an address that leads nowhere; hostNetwork is what works.
write_network() {
  cat >"$NODE/cni/bin/nothing" <<'S'
#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
ADD)
  nsenter --net="$CNI_NETNS" ip link set lo up
  address=169.254.100.$(($$ % 250 + 1))/32
  echo '{"cniVersion":"0.4.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"version":"4","interface":0,"address":"'"$address"'"}]}'
  ;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.0","0.3.1","0.4.0"]}' ;;
esac
S
  cp "$NODE/cni/bin/nothing" "$NODE/cni/bin/loopback"
  chmod +x "$NODE/cni/bin/"*
  echo '{"cniVersion":"0.4.0","name":"nothing","plugins":[{"type":"nothing"}]}' >"$NODE/cni/conf/10-nothing.conflist"
}

write_containerd_config() {
  cat >"$DIR/containerd.toml" <<Y
version = 2
root = "$NODE/containerd/root"
state = "$NODE/containerd/state"
[grpc]
  address = "$SOCKET"
[plugins."io.containerd.internal.v1.opt"]
  path = "$NODE/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:3.9"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$NODE/cni/bin"
    conf_dir = "$NODE/cni/conf"
Y
}

write_kubelet_config() {
  cat >"$DIR/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: $((PORT + 4))
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
healthzPort: $((PORT + 5))
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$PKI/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet-server.crt
tlsPrivateKeyFile: $PKI/kubelet-server.key
cgroupDriver: cgroupfs
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
enforceNodeAllocatable: []
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
volumePluginDir: $NODE/plugins
Y
}

main
