# shellcheck shell=bash
# The demo's clusters in Docker, made by kind, k3d or minikube. A folder in the cache records each cluster that the demo
# made, and holds its kubeconfig: no other cluster is ever changed or removed, and no other kubeconfig is written.

docker_tools=(kind k3d minikube)
# Tags of the demo's own, so that removing them takes no other build away.
operator_tag=crewjob/crewjob:demo
celery_worker_tag=crewjob/celery-worker:demo

docker_records=$cache_dir/demo/docker

use_docker_cluster() {
  tool=$1
  use_cluster "$2"
  record=$docker_records/$tool/$name
  kubeconfig=$record/kubeconfig
}

tools_found() {
  local tool
  for tool in "${docker_tools[@]}"; do
    if has "$tool"; then echo "$tool"; fi
  done
}

docker_answers() { docker info >/dev/null 2>&1; }

# require_docker_tool: what `make demo CLUSTER=kind` and its like need, before anything is made.
require_docker_tool() {
  local wanted missing=()
  for wanted in docker "$tool" kubectl helm; do
    has "$wanted" || missing+=("$wanted: $(where_to_get "$wanted")")
  done
  report_missing "${missing[@]}"
  docker_answers || die "the Docker daemon does not answer: start it (Docker Desktop, or: sudo systemctl start docker).
  If it runs, your user may not use it: 'docker info' says why (often the group docker is missing)."
}

# record_cluster: from here on the cluster is the demo's, also when its creation is interrupted.
record_cluster() {
  if [[ ! -d $record ]] && docker_cluster_exists; then
    die "$tool has a cluster named $name, which this demo did not make: it is left alone.
  Take another name (make demo CLUSTER=$tool CLUSTER_NAME=$name-2), or use that cluster (make demo CLUSTER=current)."
  fi
  mkdir -p "$record"
}

docker_cluster_exists() {
  local names
  case $tool in
    kind) names=$(kind get clusters) ;;
    k3d) names=$(k3d cluster list --no-headers | awk '{ print $1 }') ;;
    # It fails where there is no profile yet.
    minikube) names=$(minikube profile list --output json | grep -o '"Name": *"[^"]*"' | cut -d '"' -f 4) || true ;;
  esac 2>/dev/null || die "$tool cannot list its clusters; run the command that does to see why: $tool $(listing_command)"
  grep -qxF "$name" <<<"$names"
}

listing_command() {
  case $tool in
    kind) echo "get clusters" ;;
    k3d) echo "cluster list" ;;
    minikube) echo "profile list" ;;
  esac
}

build_docker_images() {
  build_docker_image "$operator_tag" Dockerfile
  build_docker_image "$celery_worker_tag" examples/celery-worker/Dockerfile
}

# build_docker_image TAG DOCKERFILE: from the root of the repository. kind cannot load every image that has attestations (kubernetes-sigs/kind#3795).
build_docker_image() {
  DOCKER_BUILDKIT=1 BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --tag "$1" --iidfile "$(image_id_file "$1")" --file "$2" . ||
    die "docker build of $2 failed. Its reason is above; often the network, a proxy or the disk (docker system df)."
  docker image inspect "$1" >/dev/null ||
    die "Docker built $1 and does not have it: its builder keeps images to itself. Change it with: docker buildx use default"
}

image_id_file() { echo "$record/$(basename "${1%:*}").iid"; }

# A file in the record says that the creation came to its end.
create_docker_cluster() {
  if docker_cluster_exists; then
    if [[ -e $record/created ]]; then
      start_docker_cluster
      return
    fi
    delete_docker_cluster
  fi
  rm -f "$record/created"
  new_docker_cluster ||
    die "$tool could not make the cluster $name. Its reason is above; often too little memory or disk for Docker.
  'make demo-down CLUSTER=$tool' removes what is left of it; then run this again."
  touch "$record/created"
}

# The kubeconfig that these programs use by default stays as it is.
new_docker_cluster() {
  case $tool in
    kind) kind create cluster --name "$name" --kubeconfig "$kubeconfig" --wait 180s ;;
    k3d)
      # k3d's own default may be older than the Kubernetes that the chart needs.
      k3d cluster create "$name" --image stable --kubeconfig-update-default=false --wait --timeout 300s &&
        k3d kubeconfig get "$name" >"$kubeconfig"
      ;;
    minikube) KUBECONFIG=$kubeconfig minikube start --profile "$name" --interactive=false ;;
  esac
}

# It may have been stopped since, with Docker or by hand.
start_docker_cluster() {
  if ! wake_docker_cluster || ! await 60 "an answer of the API server" kubectl --kubeconfig "$kubeconfig" get --raw /readyz; then
    die "the cluster $name of $tool does not start. Remove it (make demo-down CLUSTER=$tool), then run this again."
  fi
}

wake_docker_cluster() {
  case $tool in
    # Docker starts its containers again.
    kind) ;;
    k3d) k3d cluster start "$name" ;;
    minikube) KUBECONFIG=$kubeconfig minikube start --profile "$name" --interactive=false ;;
  esac
}

load_docker_images() {
  load_into_docker_cluster "$operator_tag" "$celery_worker_tag" ||
    die "$tool could not load the images into $name. Its reason is above; often the disk (docker system df), or a $tool that
  is older than Docker: update $tool. What is built is kept, so run the same command again."
}

load_into_docker_cluster() {
  local image
  case $tool in
    kind) kind load docker-image --name "$name" "$@" || load_archive_into_kind "$@" ;;
    k3d) k3d image import --cluster "$name" "$@" ;;
    minikube)
      for image in "$@"; do
        minikube image load --profile "$name" "$image" || return
      done
      ;;
  esac
}

# Where Docker keeps images in containerd, some versions of kind load them from an archive only.
load_archive_into_kind() {
  local archive=$record/images.tar status=0
  docker save --output "$archive" "$@" && kind load image-archive --name "$name" "$archive" || status=$?
  rm -f "$archive"
  return "$status"
}

delete_docker_cluster() {
  case $tool in
    kind) kind delete cluster --name "$name" --kubeconfig "$kubeconfig" ;;
    k3d) k3d cluster delete "$name" ;;
    minikube) KUBECONFIG=$kubeconfig minikube delete --profile "$name" ;;
  esac
}

# recorded_docker_clusters [TOOL]: lines "TOOL NAME".
recorded_docker_clusters() {
  local record its_tool
  for record in "$docker_records"/*/*/; do
    its_tool=$(basename "$(dirname "$record")")
    [[ -d $record && ${1:-$its_tool} == "$its_tool" ]] || continue
    echo "$its_tool $(basename "$record")"
  done
}

remove_docker_cluster() {
  if ! has docker || ! has "$tool"; then die "docker and $tool are needed to remove the cluster $name that they made"; fi
  docker_answers || die "the Docker daemon does not answer: start it, then run this again to remove the cluster $name"
  if docker_cluster_exists; then
    delete_docker_cluster >&2 || die "$tool could not remove the cluster $name; its reason is above. Run this again once it is mended."
  fi
  rm -rf "$record"
  say "The cluster $name of $tool is gone."
  if [[ -z $(recorded_docker_clusters) ]]; then remove_docker_images; fi
}

remove_docker_images() {
  local image
  for image in "$operator_tag" "$celery_worker_tag"; do
    if docker image inspect "$image" >/dev/null 2>&1; then docker image rm "$image" >/dev/null; fi
  done
  say "So are the images $operator_tag and $celery_worker_tag. Docker keeps the images that it pulled, and its build cache:"
  say "  docker image ls; docker builder prune"
}
