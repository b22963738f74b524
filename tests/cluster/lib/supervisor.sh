#!/usr/bin/env bash
# supervisor.sh STATE_DIR: runs a cluster's components and starts again what has died, unless it was stopped on purpose.
# For a whole cluster it is the init of the cluster's own process, mount and network namespaces.
set -euo pipefail

lib_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state_dir=$1
# shellcheck source=/dev/null
source "$state_dir/settings"
source "$lib_dir/progress.sh"
source "$lib_dir/control_plane.sh"
source "$lib_dir/node.sh"

supervise() {
  local component=$1 began
  while true; do
    while [[ -e $state_dir/$component.stopped ]]; do sleep 0.1; done
    began=$SECONDS
    "run_$component" >>"$state_dir/log/$component.log" 2>&1 &
    echo $! >"$state_dir/$component.pid"
    wait $! || say "$component ended with status $? after $(elapsed_since "$began")"
    rm -f "$state_dir/$component.pid"
    # What dies at once, over and over, must not keep the machine busy.
    if ((SECONDS - began < 2)); then sleep 1; fi
  done
}

if [[ $mode == cluster ]]; then set_up_node; fi
supervise etcd &
supervise apiserver &
if [[ $mode == cluster ]]; then
  await 180 "the API server's start" api_is_ready
  for component in "${node_components[@]}"; do
    supervise "$component" &
  done
fi
wait
