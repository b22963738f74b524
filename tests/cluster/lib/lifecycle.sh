# shellcheck shell=bash
# Bringing clusters up and down, and reaching into them.

# The process whose end is the cluster's end: the supervisor, or the `unshare` around it.
supervisor_pid() {
  local pid
  pid=$(cat "$state_dir/supervisor.pid" 2>/dev/null) && grep -qsF "$state_dir" "/proc/$pid/cmdline" && echo "$pid"
}

is_running() { supervisor_pid >/dev/null; }

running_mode() { sed -n 's/^mode=//p' "$state_dir/settings"; }

init_pid() { pgrep -P "$(supervisor_pid)"; }

require_running() {
  is_running || die "cluster '$name' is not up; bring it up with: $0 --name $name up"
}

require_node() {
  require_running
  [[ $(running_mode) == cluster ]] || die "'$name' is a control plane only: it has no node and no network of its own"
}

# in_cluster COMMAND...: where the cluster's addresses mean the cluster. Names in the cluster's domain resolve there too.
in_cluster() {
  require_running
  export KUBECONFIG=$state_dir/kubeconfig PATH=$bin_dir:$PATH KUBECACHEDIR=$state_dir/client-cache
  export HELM_CACHE_HOME=$state_dir/helm HELM_CONFIG_HOME=$state_dir/helm HELM_DATA_HOME=$state_dir/helm
  if [[ $(running_mode) == control-plane ]]; then
    "$@"
    return
  fi
  ((EUID == 0)) || die "reaching into a cluster needs root"
  # shellcheck disable=SC2016
  nsenter -t "$(init_pid)" --net unshare --mount bash -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' \
    "$state_dir/host-resolv.conf" "$@"
}

# Ports below those that the kernel hands out by itself.
free_port() {
  local port
  while true; do
    port=$((10000 + RANDOM % 20000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

write_settings() {
  mkdir -p "$state_dir/log"
  local line
  for line in mode name cache_dir state_dir bin_dir pause_image cgroup \
    api_address api_bind_address api_port endpoint_reconciler etcd_port etcd_peer_port; do
    printf '%s=%q\n' "$line" "${!line}"
  done >"$state_dir/settings"
}

start_control_plane() {
  local mode=control-plane cgroup='' api_address=127.0.0.1 api_bind_address=127.0.0.1 endpoint_reconciler=none
  local api_port etcd_port etcd_peer_port
  api_port=$(free_port) etcd_port=$(free_port) etcd_peer_port=$(free_port)
  trap give_up_start EXIT
  write_settings
  write_control_plane_files
  launch setsid
  await 180 "the API server's start" api_is_ready
  trap - EXIT
}

start_cluster() {
  local mode=cluster cgroup=crewjob-$name api_address=192.0.2.10 api_bind_address=0.0.0.0
  local endpoint_reconciler=lease api_port=6443 etcd_port=2379 etcd_peer_port=2380
  modprobe -a br_netfilter bridge nf_tables overlay veth 2>/dev/null || true
  trap give_up_start EXIT
  write_settings
  write_control_plane_files
  printf 'nameserver %s\nsearch svc.cluster.local cluster.local\n' "$api_address" >"$state_dir/host-resolv.conf"
  launch setsid unshare --net --mount --pid --fork --mount-proc --kill-child
  await 60 "the namespaces' start" init_pid
  await 180 "containerd's start" import_image "$(base_archive pause)"
  await 180 "the node's registration" in_cluster kubectl wait --for=condition=Ready node/node --timeout=1s
  await 180 "the first service account's creation" in_cluster kubectl -n default get serviceaccount default
  await 180 "the cluster's DNS" in_cluster getent hosts kubernetes.default
  trap - EXIT
}

# What is left of a failed start would pass for a running cluster.
give_up_start() {
  local log
  for log in "$state_dir"/log/*.log; do
    say "--- $(basename "$log" .log)"
    tail -n 4 "$log" >&2
  done
  rm -rf "$cache_dir/log/$name"
  cp -r "$state_dir/log" "$cache_dir/log/$name"
  say "--- the whole logs are in $cache_dir/log/$name"
  take_down
}

launch() {
  without_locks exec "$@" "$cluster_dir/lib/supervisor.sh" "$state_dir" \
    </dev/null >"$state_dir/log/supervisor.log" 2>&1 &
  echo $! >"$state_dir/supervisor.pid"
  disown
}

# plan_start MODE COMMAND: unless it is up already.
plan_start() {
  local wanted=$1 start=$2
  if is_running; then
    [[ $(running_mode) == "$wanted" ]] || die "'$name' is up as a $(running_mode); choose another --name, or take it down first"
    return
  fi
  clean_up
  plan "starting $name" "$start"
}

take_down() {
  local pid
  if pid=$(supervisor_pid); then
    if [[ $(running_mode) == cluster ]]; then kill -KILL "$pid"; else kill -KILL -- "-$pid"; fi
    await 30 "the end of cluster '$name'" is_gone "$pid"
  fi
  clean_up
}

# A process that only waits to be reaped has no command line any more.
is_gone() { ! grep -qs . "/proc/$1/cmdline"; }

clean_up() {
  local folder
  find /sys/fs/cgroup -maxdepth 2 -type d -name "crewjob-$name" 2>/dev/null | while read -r folder; do
    await 30 "the end of processes in $folder" remove_cgroup "$folder"
  done
  rm -rf "$state_dir"
}

remove_cgroup() { find "$1" -depth -type d -exec rmdir {} +; }

import_image() {
  ctr --address "$state_dir/containerd.sock" --namespace k8s.io images import "$1"
}

# load_image ARCHIVE: unless the cluster has it already.
load_image() {
  local id
  id=$(image_id "$1")
  if ! grep -qsxF "$id" "$state_dir/loaded"; then
    import_image "$1" >&2
    echo "$id" >>"$state_dir/loaded"
  fi
}

# An archive names the image's configuration by its digest.
image_id() { tar -xOf "$1" manifest.json; }

component_pid() { cat "$state_dir/$1.pid" 2>/dev/null; }

# Signals go through the process namespace that the component's id belongs to.
signal_component() {
  local component=$1 signal=$2 pid
  pid=$(component_pid "$component") || return 0
  if [[ $(running_mode) == cluster ]]; then
    nsenter -t "$(init_pid)" --pid --mount kill -s "$signal" "$pid"
  else
    kill -s "$signal" "$pid"
  fi
}

has_ended() { [[ ! -e $state_dir/$1.pid ]]; }

stop_component() {
  touch "$state_dir/$1.stopped"
  signal_component "$1" "$2"
  await 90 "the end of $1" has_ended "$1"
}

start_component() {
  rm -f "$state_dir/$1.stopped"
  if [[ $1 == apiserver ]]; then
    await 180 "the API server's start" in_cluster kubectl get --raw /readyz
  else
    await 60 "the start of $1" component_pid "$1"
  fi
}
