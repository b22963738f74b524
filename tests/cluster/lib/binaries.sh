# shellcheck shell=bash
# Kubernetes and its companions, built from the Go module proxy once per machine.

source "$cluster_dir/bin/versions.sh"

kubernetes_programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl)

go_build=(nice go build -buildvcs=false -trimpath)
go_install=(nice go install -trimpath -ldflags="-s -w")

# build_module NAME [LINKER_FLAGS]: appears under its name only when it is complete.
build_module() (
  mkdir -p "$bin_dir"
  cd "$cluster_dir/bin/$1" || exit
  CGO_ENABLED=0 "${go_build[@]}" -ldflags="-s -w ${2:-}" -o "$bin_dir/$1.part" .
  mv "$bin_dir/$1.part" "$bin_dir/$1"
)

build_kubernetes() {
  local version=k8s.io/component-base/version program
  build_module kubernetes "-X $version.gitVersion=v$kubernetes_version -X $version.gitTreeState=clean \
    -X $version.gitMajor=${kubernetes_version%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<"$kubernetes_version")"
  for program in "${kubernetes_programs[@]}"; do
    ln -sf kubernetes "$bin_dir/$program"
  done
}

install_commands() (
  mkdir -p "$bin_dir"
  staging=$(mktemp -d "$bin_dir/staging-XXXX")
  trap 'rm -rf "$staging"' EXIT
  CGO_ENABLED=0 GOBIN=$staging "${go_install[@]}" "$@"
  mv "$staging"/* "$bin_dir"
)

install_helm() { install_commands "helm.sh/helm/v4/cmd/helm@v$helm_version"; }

install_cni_plugins() {
  local plugins=github.com/containernetworking/plugins/plugins version=v$cni_plugins_version
  install_commands "$plugins/main/bridge@$version" "$plugins/main/loopback@$version" "$plugins/ipam/host-local@$version"
}

is_built() {
  local program
  for program in "$@"; do
    [[ -x $bin_dir/$program ]] || return 1
  done
}

control_plane_is_built() { is_built etcd "${kubernetes_programs[@]}"; }
binaries_are_built() { control_plane_is_built && is_built coredns kube-router pause helm bridge loopback host-local; }

plan_control_plane_binaries() {
  control_plane_is_built || lock build
  is_built etcd || plan "building etcd (about 1 min on 2 cores)" build_module etcd
  is_built "${kubernetes_programs[@]}" ||
    plan "building Kubernetes $kubernetes_version (about 5 min on 2 cores)" build_kubernetes
}

plan_binaries() {
  binaries_are_built || lock build
  plan_control_plane_binaries
  is_built coredns || plan "building CoreDNS (about 1 min)" build_module coredns
  is_built kube-router || plan "building kube-router (about 2 min)" build_module kube-router
  is_built helm || plan "building Helm $helm_version (about 2 min)" install_helm
  is_built bridge loopback host-local || plan "building the CNI plugins" install_cni_plugins
  is_built pause || plan "building the pause container" build_module pause
}
