# shellcheck shell=bash
# Images without a registry: stand-ins for the base images that the Dockerfiles name, and the project's own.

debian_mirror=${CREWJOB_DEBIAN_MIRROR:-http://deb.debian.org/debian}
pause_image=registry.k8s.io/pause:3.10
base_images=(pause debian python rust redis)

declare -A base_names=(
  [pause]=$pause_image
  [debian]=docker.io/library/debian:bookworm-slim
  [python]=docker.io/library/python:3.11-slim-bookworm
  [rust]=docker.io/library/rust:1.95-bookworm
  [redis]=docker.io/library/redis:7.2.12-bookworm
)

# Base images that clusters load, as archives; the others only serve builds.
archived_base_images=(pause redis)

image_store=$cache_dir/images

base_archive() { echo "$image_store/$1.tar"; }

in_image_store() {
  mkdir -p "$image_store/tmp"
  TMPDIR=$image_store/tmp BUILDAH_ISOLATION=chroot STORAGE_DRIVER=overlay \
    CONTAINERS_REGISTRIES_CONF=$cluster_dir/images/registries.conf \
    unshare --mount buildah --root "$image_store/storage" --runroot "$image_store/run" "$@"
}

# build_image NAME DOCKERFILE CONTEXT [MOUNT...]
build_image() {
  in_image_store build --layers --pull=never --network host --cni-config-dir "$image_store/cni" \
    --volume /etc/apt/apt.conf.d:/etc/apt/apt.conf.d:ro "${@:4}" --tag "$1" --file "$2" "$3"
}

# build_project_image NAME DOCKERFILE CONTEXT: with the machine's own way to the package registries, which no image keeps.
build_project_image() {
  registry_access=()
  write_pip_index_options >"$image_store/pip.conf"
  mount_in_build "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" /etc/ssl/certs/ca-certificates.crt
  mount_in_build "${PIP_CONFIG_FILE:-/etc/pip.conf}" /etc/pip.conf
  mount_in_build "$image_store/pip.conf" /etc/xdg/pip/pip.conf
  mount_in_build "${CARGO_HOME:-$HOME/.cargo}/config.toml" /usr/local/cargo/config.toml
  build_image "$@" "${registry_access[@]}"
}

write_pip_index_options() {
  echo "[global]"
  if [[ -n ${PIP_INDEX_URL:-} ]]; then echo "index-url = $PIP_INDEX_URL"; fi
  if [[ -n ${PIP_EXTRA_INDEX_URL:-} ]]; then echo "extra-index-url = $PIP_EXTRA_INDEX_URL"; fi
  if [[ -n ${PIP_TRUSTED_HOST:-} ]]; then echo "trusted-host = $PIP_TRUSTED_HOST"; fi
}

mount_in_build() {
  if [[ -s $1 ]]; then registry_access+=(--volume "$1:$2:ro"); fi
}

# export_image NAME ARCHIVE: writes the archive unless it holds this very image under this name.
export_image() {
  local id
  id="$1 $(in_image_store images --no-trunc --quiet "$1")"
  if [[ $(cat "$2.id" 2>/dev/null) == "$id" && -e $2 ]]; then return; fi
  rm -f "$2.part"
  in_image_store push --quiet "$1" "docker-archive:$2.part:$1"
  mv "$2.part" "$2"
  echo "$id" >"$2.id"
}

# A base image is made again when what it is made from changes.
base_key() {
  (cd "$cluster_dir/images" && sha256sum -- *; base_ingredients "$1") | sha256sum
}

base_ingredients() {
  case $1 in
    pause) echo "$bin_dir" ;;
    rust) rustc --version ;;
    redis) echo "${base_names[redis]}" ;;
  esac
}

base_is_made() { [[ $(cat "$image_store/$1.key" 2>/dev/null) == "$(base_key "$1")" ]]; }

plan_base_images() {
  local image
  for image in "$@"; do
    base_is_made "$image" || lock images
    base_is_made "$image" || plan "making the base image ${base_names[$image]}" make_base_image "$image"
  done
}

make_base_image() {
  local image=$1 context
  mkdir -p "$image_store"
  context=$(mktemp -d "$image_store/context-XXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$context'" EXIT
  "collect_for_$image" "$context"
  build_image "${base_names[$image]}" "$cluster_dir/images/$image.Dockerfile" "$context"
  if [[ " ${archived_base_images[*]} " == *" $image "* ]]; then
    export_image "${base_names[$image]}" "$(base_archive "$image")"
  fi
  base_key "$image" >"$image_store/$image.key"
}

collect_for_pause() { cp "$bin_dir/pause" "$1"; }

collect_for_debian() {
  local root=$1/rootfs
  unshare --mount debootstrap --variant=minbase bookworm "$root" "$debian_mirror"
  rm -rf "$root"/var/{cache/apt,lib/apt/lists,log}/* "$root"/usr/share/{doc,info,locale,man}/* "$root"/etc/{hostname,resolv.conf}
  tar -C "$root" -cf "$1/rootfs.tar" .
  rm -rf "$root"
}

collect_for_python() { :; }

collect_for_redis() { cp "$cluster_dir/images/redis-entrypoint.sh" "$1"; }

collect_for_rust() {
  (cd "$(rustc --print sysroot)" && tar -c --exclude share/doc --exclude share/man .) | tar -C "$1" -x
}

project_version() { sed -n 's/^version = "\(.*\)"/\1/p' "$project_dir/Cargo.toml" | head -n 1; }

operator_image() { echo "docker.io/crewjob/crewjob:$(project_version)"; }
native_worker_image() { echo "docker.io/crewjob/worker:$(project_version)"; }
celery_worker_image() { echo "docker.io/crewjob/celery-worker:$(project_version)"; }

operator_archive=$image_store/crewjob.tar
native_worker_archive=$image_store/worker.tar
celery_worker_archive=$image_store/celery-worker.tar

plan_images() {
  lock images
  plan "building the images of operator and native worker from Dockerfile (about 5 min the first time)" build_operator_images
  plan "building the worker's image from examples/celery-worker/Dockerfile" build_celery_worker_image
}

build_operator_images() {
  build_project_image "$(operator_image)" "$project_dir/Dockerfile" "$project_dir"
  build_project_image "$(native_worker_image)" "$project_dir/Dockerfile" "$project_dir" --target worker
  export_image "$(operator_image)" "$operator_archive"
  export_image "$(native_worker_image)" "$native_worker_archive"
}

build_celery_worker_image() {
  local dockerfile=$project_dir/examples/celery-worker/Dockerfile
  build_project_image "$(celery_worker_image)" "$dockerfile" "$project_dir" --ignorefile "$dockerfile.dockerignore"
  export_image "$(celery_worker_image)" "$celery_worker_archive"
}
