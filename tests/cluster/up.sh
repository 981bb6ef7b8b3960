#!/usr/bin/env bash
# up.sh DIR PORT: starts etcd, kube-apiserver and kube-controller-manager on 127.0.0.1 and waits until
# they serve; DIR/kubeconfig is the administrator's. Run again on the same DIR it restarts what was
# stopped, with the same certificates and data. A failed start stops all it started; see README.md.
set -euo pipefail

[ $# = 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
HERE=$(cd "$(dirname "$0")" && pwd)
LAB=${LAB:-$HOME/.cache/stillpoint-cluster}
BIN=$LAB/k8s-1.20
DIR=$(mkdir -p "$1" && cd "$1" && pwd)
PORT=$2
PKI=$DIR/pki
ETCD=http://127.0.0.1:$((PORT + 1))
ETCD_PEER=http://127.0.0.1:$((PORT + 2))

main() {
  [ -x "$BIN/kube-apiserver" ] || { echo "up.sh: nothing in $BIN: run $HERE/build.sh first" >&2; exit 1; }
  mkdir -p "$PKI" "$DIR/log" "$DIR/pid"
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

authority() { # NAME
  [ ! -f "$PKI/$1.crt" ] || return 0
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$1" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$PKI/$1.key" -out "$PKI/$1.new" 2>/dev/null
  mv "$PKI/$1.new" "$PKI/$1.crt"
}

certificate() { # NAME AUTHORITY SUBJECT USAGE [HOSTS]
  [ ! -f "$PKI/$1.crt" ] || return 0
  printf '%s\n' "extendedKeyUsage=$4" "keyUsage=critical,digitalSignature" ${5:+"subjectAltName=$5"} >"$PKI/$1.ext"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" -keyout "$PKI/$1.key" 2>/dev/null |
    openssl x509 -req -CA "$PKI/$2.crt" -CAkey "$PKI/$2.key" -CAcreateserial -days 365 \
      -extfile "$PKI/$1.ext" -out "$PKI/$1.new" 2>/dev/null
  mv "$PKI/$1.new" "$PKI/$1.crt"
}

make_certificates() {
  authority ca
  authority front-proxy-ca
  certificate apiserver ca /CN=kube-apiserver serverAuth "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
  certificate admin ca /O=system:masters/CN=admin clientAuth
  certificate controller-manager ca /CN=system:kube-controller-manager clientAuth
  certificate front-proxy front-proxy-ca /CN=front-proxy clientAuth
  [ -f "$PKI/sa.pub" ] || {
    openssl ecparam -genkey -name prime256v1 -noout -out "$PKI/sa.key"
    openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  }
}

write_kubeconfig() { # FILE CERTIFICATE
  cat >"$1" <<Y
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: $2}}]
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$PORT", certificate-authority: "$PKI/ca.crt"}}]
users: [{name: $2, user: {client-certificate: "$PKI/$2.crt", client-key: "$PKI/$2.key"}}]
Y
}

running() { # NAME
  [ -f "$DIR/pid/$1" ] && kill -0 "$(cat "$DIR/pid/$1")" 2>/dev/null
}

start() { # NAME ARGUMENTS...
  local name=$1
  shift
  ! running "$name" || return 0
  (cd "$DIR" && exec setsid "$BIN/$name" "$@" >>"$DIR/log/$name.log" 2>&1 </dev/null) &
  echo $! >"$DIR/pid/$name"
}

ask() { # PATH
  curl -sf --max-time 5 --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" "https://127.0.0.1:$PORT$1"
}

await() { # NAME COMMAND...
  local name=$1 deadline=$((SECONDS + 60))
  shift
  until "$@" >/dev/null; do
    if ! running "$name" || [ $SECONDS -ge $deadline ]; then
      echo "up.sh: $name does not serve; the end of $DIR/log/$name.log:" >&2
      tail -n 20 "$DIR/log/$name.log" >&2
      exit 1
    fi
    sleep 0.2
  done
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
    --cert-dir="$DIR/unused"
}

start_controller_manager() {
  start kube-controller-manager --bind-address=127.0.0.1 --secure-port=$((PORT + 3)) --port=0 --leader-elect=false \
    --kubeconfig="$DIR/controller-manager.kubeconfig" --authentication-kubeconfig="$DIR/controller-manager.kubeconfig" \
    --authorization-kubeconfig="$DIR/controller-manager.kubeconfig" --use-service-account-credentials=true \
    --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/ca.crt" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" --cert-dir="$DIR/unused"
}

main
