# shellcheck shell=bash
# What `make demo-down` removes: what the demo made, and nothing that was there before.

# Without CLUSTER, all clusters that the demo made. That of a kubeconfig is changed only when it is asked for.
remove_demo() {
  case $where in
    '') remove_whatever_was_made ;;
    own) remove_own_cluster ;;
    current) remove_from_current_cluster ;;
    kind | k3d | minikube) remove_docker_clusters "$(recorded_docker_clusters "$where")" ;;
  esac
}

remove_whatever_was_made() {
  local made
  made=$(recorded_docker_clusters)
  if [[ -n $made ]]; then remove_docker_clusters "$made"; fi
  use_own_cluster
  if [[ -z $made || -e $own_record ]]; then remove_own_cluster; fi
}

# remove_docker_clusters LINES: "TOOL NAME" each; with CLUSTER_NAME only those of that name.
remove_docker_clusters() {
  local its_tool its_name wanted=${CLUSTER_NAME:-} removed=''
  while read -r its_tool its_name; do
    [[ -n $its_tool && ${wanted:-$its_name} == "$its_name" ]] || continue
    (use_docker_cluster "$its_tool" "$its_name" && remove_docker_cluster) </dev/null
    removed=yes
  done <<<"$1"
  [[ -n $removed ]] || say "This demo made no cluster${wanted:+ named $wanted} with ${where:-Docker}: nothing is removed."
}

remove_own_cluster() {
  use_own_cluster
  if [[ ! -e $own_record ]]; then
    say "This demo made no cluster $name of its own: nothing is removed. (CLUSTER=current removes it from that of your kubeconfig.)"
    return
  fi
  "${cluster[@]}" down
  say "The demo's cluster $name is gone. What was built for it is kept in $cache_dir."
  if [[ -s $own_record ]]; then
    say "The Debian packages that were installed for it are kept, too. To remove them:"
    say "  apt-get remove $(sort -u "$own_record" | paste -sd' ')"
  fi
  rm -f "$own_record"
}

remove_from_current_cluster() {
  use_current_cluster
  if [[ -n $(release_secrets "$mark") ]]; then
    "${kubectl[@]}" -n "$namespace" delete crewjob "$job" --ignore-not-found
    "${helm[@]}" uninstall "$release" --namespace "$namespace" --ignore-not-found --wait
  else
    say "The namespace $namespace has no Helm release $release of the demo."
  fi
  remove_marked namespace "$namespace"
  for crd in "${crds[@]}"; do
    remove_marked customresourcedefinition "$crd"
  done
}

# remove_marked RESOURCE NAME: unless it was there before the demo.
remove_marked() {
  if [[ -n $("${kubectl[@]}" get "$1" --selector "$mark" --field-selector "metadata.name=$2" --output name) ]]; then
    "${kubectl[@]}" delete "$1" "$2"
  else
    say "The $1 $2 is kept, if there is one: the demo did not make it."
  fi
}
