#!/usr/bin/env bash
# up.sh DIR PORT: starts etcd, kube-apiserver and kube-controller-manager on 127.0.0.1 and waits until
# they serve; DIR/kubeconfig is the administrator's. Run again on the same DIR it restarts what was
# stopped, with the same certificates and data. A failed start stops all it started; see README.md.
set -euo pipefail

[ $# = 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
HERE=$(cd "$(dirname "$0")" && pwd)
DIR=$(mkdir -p "$1" && cd "$1" && pwd)
PORT=$2
. "$HERE/lib.sh"
ETCD=http://127.0.0.1:$((PORT + 1))
ETCD_PEER=http://127.0.0.1:$((PORT + 2))

main() {
  [ -x "$BIN/kube-apiserver" ] || { echo "up.sh: nothing in $BIN: run $HERE/build.sh first" >&2; exit 1; }
  mkdir -p "$PKI" "$DIR/log" "$DIR/pid"
  echo "$PORT" >"$DIR/port"
  trap 'stop_all $?' EXIT
  make_certificates
  write_kubeconfig "$DIR/kubeconfig" admin
  write_kubeconfig "$DIR/controller-manager.kubeconfig" controller-manager
  start_etcd
  await etcd curl -sf --max-time 5 "$ETCD/health"
  start_apiserver
  await kube-apiserver ask /readyz
  start_controller_manager
  await kube-controller-manager ask /api/v1/namespaces/default/serviceaccounts/default
  trap - EXIT
  echo "up: KUBECONFIG=$DIR/kubeconfig"
}

stop_all() {
  [ "$1" = 0 ] || "$HERE/down.sh" "$DIR"
}

make_certificates() {
  authority ca
  authority front-proxy-ca
  certificate apiserver ca /CN=kube-apiserver serverAuth "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
  certificate admin ca /O=system:masters/CN=admin clientAuth
  certificate controller-manager ca /CN=system:kube-controller-manager clientAuth
  certificate apiserver-kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
  certificate front-proxy front-proxy-ca /CN=front-proxy clientAuth
  [ -f "$PKI/sa.pub" ] || {
    openssl ecparam -genkey -name prime256v1 -noout -out "$PKI/sa.key"
    openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  }
}

start_etcd() {
  start etcd --name=test --data-dir="$DIR/etcd" --unsafe-no-fsync \
    --listen-client-urls="$ETCD" --advertise-client-urls="$ETCD" \
    --listen-peer-urls="$ETCD_PEER" --initial-advertise-peer-urls="$ETCD_PEER" --initial-cluster="test=$ETCD_PEER"
}

start_apiserver() {
  start kube-apiserver --bind-address=127.0.0.1 --secure-port="$PORT" --insecure-port=0 --advertise-address=127.0.0.1 \
    --endpoint-reconciler-type=none --etcd-servers="$ETCD" --etcd-compaction-interval="${COMPACT:-5m}" \
    --authorization-mode=Node,RBAC --allow-privileged=true --service-cluster-ip-range=10.96.0.0/16 \
    --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- --enable-aggregator-routing=true \
    --proxy-client-cert-file="$PKI/front-proxy.crt" --proxy-client-key-file="$PKI/front-proxy.key" \
    --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" \
    --kubelet-client-key="$PKI/apiserver-kubelet-client.key" --kubelet-certificate-authority="$PKI/ca.crt" \
    --kubelet-preferred-address-types=Hostname --cert-dir="$DIR/unused"
}

start_controller_manager() {
  start kube-controller-manager --bind-address=127.0.0.1 --secure-port=$((PORT + 3)) --port=0 --leader-elect=false \
    --kubeconfig="$DIR/controller-manager.kubeconfig" --authentication-kubeconfig="$DIR/controller-manager.kubeconfig" \
    --authorization-kubeconfig="$DIR/controller-manager.kubeconfig" --use-service-account-credentials=true \
    --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/ca.crt" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" --cert-dir="$DIR/unused"
}

main
