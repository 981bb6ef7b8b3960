# What up.sh and node-up.sh share: certificates, kubeconfigs, and servers with pid files. Sourced, with DIR and PORT set.

LAB=${LAB:-$HOME/.cache/stillpoint-cluster}
BIN=$LAB/k8s-1.20
PKI=$DIR/pki

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

# One that was killed and that nobody has reaped has no command line.
running() { # NAME
  [ -f "$DIR/pid/$1" ] && [ -n "$(tr -d '\0' 2>/dev/null <"/proc/$(cat "$DIR/pid/$1")/cmdline")" ]
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
      echo "${0##*/}: $name does not serve; the end of $DIR/log/$name.log:" >&2
      tail -n 20 "$DIR/log/$name.log" >&2
      exit 1
    fi
    sleep 0.2
  done
}
