# shellcheck shell=bash
# Where everything is. What is built once per machine lies in the cache; a cluster's own state lies in one folder.

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
project_dir=$(cd "$cluster_dir/../.." && pwd)
cache_dir=${CREWJOB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/crewjob}

# One folder per version of the sources: a change never replaces what a running cluster uses.
binaries_key() {
  (cd "$cluster_dir" && find bin -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; uname -m) |
    sha256sum | cut -c1-12
}
bin_dir=$cache_dir/bin/$(binaries_key)

use_cluster() {
  name=$1
  [[ $name =~ ^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$ ]] ||
    die "cluster name '$name': use up to 32 lower-case letters, digits and hyphens"
  state_dir=$cache_dir/run/$name
}
