#!/usr/bin/env bash
# Builds Kubernetes 1.20.2 from Debian's source package, once; see README.md.
# Safe to run again, also after an interruption and beside another run.
set -euo pipefail

LAB=${LAB:-$HOME/.cache/stillpoint-cluster}
OUT=$LAB/k8s-1.20
VERSION=1.20.2
PROGRAMS=(kube-apiserver kube-controller-manager kubelet)
PACKAGES=(busybox-static containerd curl etcd-server gcc golang-github-modern-go-reflect2-dev golang-go iproute2
  libc6-dev make openssl python3 rsync runc)

fail() { echo "build.sh: $*" >&2; exit 1; }

main() {
  mkdir -p "$OUT" "$LAB/src"
  exec 9>"$LAB/build.lock"
  flock 9
  install_packages
  ln -sfn "$(command -v etcd)" "$OUT/etcd"
  if ! built; then
    cd "$LAB/src"
    local tree=$PWD/gopath/src/k8s.io/kubernetes
    [ -d "$tree" ] || unpack "$tree"
    compile "$tree"
  fi
  ls -l "$OUT"
}

built() {
  local program
  for program in "${PROGRAMS[@]}"; do [ -x "$OUT/$program" ] || return 1; done
}

install_packages() {
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    dpkg -s "$package" 2>/dev/null | grep -q '^Status: install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || fail "install these packages first (or run as root): ${missing[*]}"
  apt-get -o DPkg::Lock::Timeout=600 update -qq
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq "${missing[@]}" >/dev/null
}

# The machine's own Debian entries, asked for sources, in a folder of ours: apt checks their signatures.
write_sources() {
  local deb822=/etc/apt/sources.list.d/debian.sources plain=/etc/apt/sources.list
  rm -rf apt/sources && mkdir -p apt/sources apt/lists/partial apt/cache/archives/partial
  if [ -s "$deb822" ]; then
    sed 's/^Types:.*/Types: deb-src/' "$deb822" >apt/sources/debian.sources
  elif grep -qs '^deb[[:space:]]' "$plain"; then
    sed -n 's/^deb\([[:space:]]\)/deb-src\1/p' "$plain" >apt/sources/debian.list
  else
    fail "neither $deb822 nor $plain names a Debian archive to take the source of Kubernetes from"
  fi
}

download() {
  write_sources
  local apt=(apt-get -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$PWD/apt/sources"
    -o "Dir::State::lists=$PWD/apt/lists" -o "Dir::Cache=$PWD/apt/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update -qq
  "${apt[@]}" source -qq --download-only kubernetes || fail "no source package of Kubernetes in this Debian release"
}

# unpack TREE: the tree appears under its name only when it is complete.
unpack() {
  local tree=$1 archives
  download
  archives=(kubernetes_*"$VERSION".orig.tar.gz)
  [ -f "${archives[0]}" ] || fail "this Debian release has another Kubernetes than $VERSION (bookworm has it)"
  rm -rf unpacking && mkdir unpacking
  tar xzf "${archives[0]}" -C unpacking --strip-components=1
  # the vendored reflect2 crashes when built with Go 1.18 or newer; Debian's own does not
  local reflect2=github.com/modern-go/reflect2
  rm -rf "unpacking/vendor/$reflect2"
  cp -r "/usr/share/gocode/src/$reflect2" "unpacking/vendor/$reflect2"
  mkdir -p "${tree%/*}"
  mv unpacking "$tree"
}

compile() {
  local tree=$1 program
  export GOPATH=$PWD/gopath GOCACHE=$PWD/gocache GO111MODULE=off CGO_ENABLED=0
  (cd "$tree" && make generated_files) >generated.log 2>&1 || { tail -n 20 generated.log >&2; fail "make generated_files failed"; }
  for program in "${PROGRAMS[@]}"; do
    [ ! -x "$OUT/$program" ] || continue
    (cd "$tree" && go build -p 2 -ldflags "$(version_flags)" -o "$OUT/$program.new" "k8s.io/kubernetes/cmd/$program")
    mv "$OUT/$program.new" "$OUT/$program"
  done
  rm -rf "$GOCACHE"
}

# The build stamps its version into four packages; without it the servers call themselves v0.0.0.
version_flags() {
  local flags="-s -w" root package
  for root in k8s.io k8s.io/kubernetes/vendor/k8s.io; do
    for package in component-base/version client-go/pkg/version; do
      flags+=" -X $root/$package.gitVersion=v$VERSION -X $root/$package.gitMajor=1 -X $root/$package.gitMinor=20"
    done
  done
  echo "$flags"
}

main
