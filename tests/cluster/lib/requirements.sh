# shellcheck shell=bash
# What the machine must have. What is missing and cannot be installed from here is said at once, all of it.

debian_packages=(
  buildah:buildah containerd:containerd containerd-shim-runc-v2:containerd runc:runc debootstrap:debootstrap
  ip:iproute2 nft:nftables iptables:iptables ipset:ipset openssl:openssl pgrep:procps redis-server:redis-server
)

has() { command -v "$1" >/dev/null 2>&1; }

missing_packages() {
  local pair
  for pair in "${debian_packages[@]}"; do
    has "${pair%%:*}" || printf '%s\n' "${pair##*:}"
  done | sort -u
}

# A package's service must not start: the cluster runs its own.
install_packages() {
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

plan_packages() {
  local packages
  mapfile -t packages < <(missing_packages)
  if ((${#packages[@]} > 0)); then
    plan "installing Debian packages: ${packages[*]}" install_packages "${packages[@]}"
  fi
}

# require_cluster_host [TOOL...]: a full cluster's needs, and the caller's own.
require_cluster_host() {
  local tool missing=()
  [[ $(uname -s) == Linux ]] || missing+=("Linux (this is $(uname -s))")
  ((EUID == 0)) || missing+=("root: network namespaces, mounts and cgroups need it (run the same command with sudo)")
  if [[ -n $(missing_packages) ]] && ! has apt-get; then
    missing+=("Debian packages, and there is no apt-get to install them: $(missing_packages | paste -sd' ')")
  fi
  if ! binaries_are_built; then
    has go || missing+=("go 1.26 or newer, to build Kubernetes once (https://go.dev/dl)")
  fi
  for tool in "$@"; do
    has "$tool" || missing+=("$tool ($(where_to_get "$tool"))")
  done
  report_missing "${missing[@]}"
}

require_control_plane_host() {
  local missing=()
  if ! control_plane_is_built; then
    has go || missing+=("go 1.26 or newer, to build Kubernetes once (https://go.dev/dl)")
  fi
  has openssl || missing+=("openssl")
  report_missing "${missing[@]}"
}

where_to_get() {
  case $1 in
    cargo) echo "https://rustup.rs" ;;
    python3) echo "apt-get install python3 python3-venv" ;;
    docker) echo "https://docs.docker.com/get-started/get-docker/" ;;
    kind) echo "https://kind.sigs.k8s.io/docs/user/quick-start/#installation" ;;
    k3d) echo "https://k3d.io/stable/#installation" ;;
    minikube) echo "https://minikube.sigs.k8s.io/docs/start/" ;;
    kubectl) echo "https://kubernetes.io/docs/tasks/tools/" ;;
    helm) echo "3.14 or newer, https://helm.sh/docs/intro/install/" ;;
    *) echo "not on the PATH" ;;
  esac
}

report_missing() {
  (($# > 0)) || return 0
  say "This machine lacks what cannot be installed from here:"
  printf '  - %s\n' "$@" >&2
  exit 1
}
