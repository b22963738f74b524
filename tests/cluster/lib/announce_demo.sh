# shellcheck shell=bash
# What the demo says before it begins: how long it takes, what it installs and where, and what removes it.

announce() {
  case $where in
    own) announce_own_cluster ;;
    current) announce_current_cluster ;;
    kind | k3d | minikube) announce_docker_cluster ;;
  esac
}

announce_own_cluster() {
  local minutes=2 packages
  binaries_are_built || minutes=$((minutes + 10))
  [[ -e $operator_archive ]] || minutes=$((minutes + 8))
  packages=$(missing_packages | paste -sd' ')
  say "A Kubernetes cluster of its own on this machine, the operator on it, and one CrewJob from zero workers to its result."
  say "  takes     about $minutes minutes on two cores; about 2 once Kubernetes and the images are built"
  if [[ -n $packages ]]; then
    say "  installs  Debian packages, with apt-get: $packages"
  else
    say "  installs  no package: all that it needs are here"
  fi
  say "  builds    Kubernetes, etcd, Helm and the images from source, into $cache_dir (3 GB, kept for the next time)"
  say "  makes     the cluster $name: processes in namespaces of their own, files in $state_dir"
  say "  removes   make demo-down: the cluster"
  say
}

announce_docker_cluster() {
  local minutes=3
  docker image inspect "$operator_tag" "$celery_worker_tag" >/dev/null 2>&1 || minutes=15
  say "A Kubernetes cluster made by $tool, the operator on it, and one CrewJob from zero workers to its result."
  say "  takes     about $minutes minutes on two cores, depending on the network; about 3 once the images are built"
  say "  installs  nothing on this machine"
  say "  builds    the images $operator_tag and $celery_worker_tag in Docker, which pulls what they are built from"
  say "  makes     the cluster $name, with a kubeconfig of its own: $kubeconfig"
  say "  removes   make demo-down CLUSTER=$tool: the cluster and the two images"
  say
}

announce_current_cluster() {
  say "The operator on the cluster of your kubeconfig, context $(kubectl config current-context), and one CrewJob from zero"
  say "workers to its result."
  say "  takes     about 2 minutes, if its nodes have the images or can pull them"
  say "  installs  the Helm release $release with a Redis in the namespace $namespace, cluster roles, and the"
  say "            CustomResourceDefinitions of CrewJob and CrewWorkerPool unless they are there"
  say "  removes   make demo-down CLUSTER=current: what was not there before"
  say
}

# choose_cluster: where the demo runs unless CLUSTER says so. What it found, and how to choose, is said.
choose_cluster() {
  local found
  mapfile -t found < <(tools_found)
  where=own
  if ! has docker; then
    say "Docker was not found."
  elif ! docker_answers; then
    say "Docker was found, but its daemon does not answer (docker info says why)."
  elif ((${#found[@]} == 0)); then
    say "Docker was found, but none of ${docker_tools[*]}."
  else
    where=${found[0]}
    say "Docker was found, and ${found[*]}."
  fi
  say "Using CLUSTER=$where. To choose: CLUSTER=kind, k3d or minikube makes a cluster in Docker, CLUSTER=own makes one without"
  say "(Linux, root), CLUSTER=current takes that of your kubeconfig."
  say
}
