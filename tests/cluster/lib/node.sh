# shellcheck shell=bash
# The node of a cluster: its network, its cgroups, and what runs Pods on it. All inside the cluster's namespaces.

node_components=(controller_manager scheduler containerd kubelet proxy policies dns)
node_address=192.0.2.10
# What the kubelet would set for the whole machine. It reads its own values instead, and leaves the real ones alone.
kubelet_sysctls=(
  vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000
)
pod_network=10.244.0.0/16

set_up_node() {
  hide_fixed_places
  set_up_network
  set_up_cgroups
  write_node_files
}

# What insists on a place of its own writes there, but into folders that vanish with the mount namespace.
hide_fixed_places() {
  mount -t tmpfs tmpfs /run
  mkdir -p /run/cache "$state_dir/var-log"
  mount --rbind "$cache_dir" /run/cache
  mount --bind "$state_dir/var-log" /var/log
  mount -t tmpfs tmpfs /var/lib
  mkdir -p "$cache_dir"
  mount --rbind /run/cache "$cache_dir"
  hide_sysctls
}

hide_sysctls() {
  local setting name
  for setting in "${kubelet_sysctls[@]}"; do
    name=${setting%%=*}
    mkdir -p "/run/sysctl/${name%/*}"
    echo "${setting##*=}" >"/run/sysctl/$name"
    mount --bind "/run/sysctl/$name" "/proc/sys/$name"
  done
}

# The kubelet refuses a loopback address, and not every kernel has dummy interfaces.
set_up_network() {
  ip link set lo up
  ip link add node0 type veth peer name node0p
  ip address add "$node_address/24" dev node0
  ip link set node0 up
  ip link set node0p up
  ip route add default dev node0
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

set_up_cgroups() {
  local hierarchy
  mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    mkdir "/sys/fs/cgroup/$cgroup"
    enable_controllers /sys/fs/cgroup
    enable_controllers "/sys/fs/cgroup/$cgroup"
    return
  fi
  for hierarchy in /sys/fs/cgroup/*/; do
    [[ -L ${hierarchy%/} ]] || mkdir "$hierarchy$cgroup"
  done
  for hierarchy in cpus mems; do
    cat "/sys/fs/cgroup/cpuset/cpuset.$hierarchy" >"/sys/fs/cgroup/cpuset/$cgroup/cpuset.$hierarchy"
  done
}

enable_controllers() {
  local controller
  for controller in $(<"$1/cgroup.controllers"); do
    echo "+$controller" >"$1/cgroup.subtree_control" ||
      say "cgroup controller $controller cannot be enabled in $1"
  done
}

write_node_files() {
  mkdir -p "$state_dir"/{cni,containerd,kubelet}
  : >"$state_dir/resolv.conf"
  write_cni_configuration >"$state_dir/cni/pods.conflist"
  write_containerd_configuration >"$state_dir/containerd.toml"
  write_kubelet_configuration >"$state_dir/kubelet.yaml"
  write_proxy_configuration >"$state_dir/proxy.yaml"
  write_dns_configuration >"$state_dir/Corefile"
}

write_cni_configuration() {
  cat <<JSON
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": true,
    "hairpinMode": true,
    "ipam": {
      "type": "host-local",
      "dataDir": "/run/cni",
      "ranges": [[{ "subnet": "$pod_network" }]],
      "routes": [{ "dst": "0.0.0.0/0" }]
    }
  }]
}
JSON
}

# restrict_oom_score_adj: without CAP_SYS_RESOURCE no Pod would start.
write_containerd_configuration() {
  cat <<TOML
version = 2
root = "$state_dir/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "$state_dir/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "$state_dir/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$pause_image"
restrict_oom_score_adj = true
cni = { bin_dir = "$bin_dir", conf_dir = "$state_dir/cni" }
TOML
}

# The kubelet is alone in its namespace: its API needs no guard. The disk is the host's: its fill level is no reason to evict.
write_kubelet_configuration() {
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: { enabled: true }
  webhook: { enabled: false }
authorization: { mode: AlwaysAllow }
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
clusterDNS: [$node_address]
clusterDomain: cluster.local
resolvConf: $state_dir/resolv.conf
containerRuntimeEndpoint: unix://$state_dir/containerd.sock
podLogsDir: $state_dir/pod-logs
volumePluginDir: $state_dir/kubelet/plugins
evictionHard: { memory.available: 1%, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0% }
imageGCHighThresholdPercent: 100
kubeAPIQPS: 200
kubeAPIBurst: 400
maxPods: 250
serializeImagePulls: false
YAML
}

write_proxy_configuration() {
  cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $pod_network
clientConnection: { kubeconfig: $state_dir/kubeconfig }
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
nftables: { minSyncPeriod: 100ms }
YAML
}

write_dns_configuration() {
  cat <<COREFILE
. {
  bind $node_address
  errors
  cache 5
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $state_dir/kubeconfig
  }
}
COREFILE
}

run_controller_manager() {
  exec "$bin_dir/kube-controller-manager" --kubeconfig "$state_dir/kubeconfig" --leader-elect=false \
    --use-service-account-credentials --root-ca-file "$state_dir/pki/apiserver.crt" \
    --service-account-private-key-file "$state_dir/pki/service-accounts.key" \
    --kube-api-qps 200 --kube-api-burst 400 --cert-dir /run/controller-manager
}

run_scheduler() {
  exec "$bin_dir/kube-scheduler" --kubeconfig "$state_dir/kubeconfig" --leader-elect=false \
    --kube-api-qps 200 --kube-api-burst 400 --cert-dir /run/scheduler
}

run_containerd() { exec containerd --config "$state_dir/containerd.toml" --log-level warn; }

run_kubelet() {
  exec "$bin_dir/kubelet" --config "$state_dir/kubelet.yaml" --kubeconfig "$state_dir/kubeconfig" \
    --root-dir "$state_dir/kubelet" --cert-dir "$state_dir/kubelet/pki" \
    --hostname-override node --node-ip "$node_address"
}

run_proxy() { exec "$bin_dir/kube-proxy" --config "$state_dir/proxy.yaml" --hostname-override node; }

# Network policies, of all that it can do.
run_policies() {
  exec "$bin_dir/kube-router" --kubeconfig "$state_dir/kubeconfig" --hostname-override node \
    --run-firewall --run-router=false --run-service-proxy=false --health-port 0 --service-cluster-ip-range 10.96.0.0/16
}

run_dns() { exec "$bin_dir/coredns" -conf "$state_dir/Corefile"; }
