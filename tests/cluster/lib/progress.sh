# shellcheck shell=bash
# Long steps: what is done, how far along, for how long. All of it goes to stderr.

planned_labels=()
planned_commands=()

say() { printf '%s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

elapsed_since() {
  local seconds=$((SECONDS - $1))
  if ((seconds < 60)); then
    printf '%ds' "$seconds"
  else
    printf '%dm%02ds' $((seconds / 60)) $((seconds % 60))
  fi
}

# plan LABEL COMMAND...: a step for the next run_plan. A command is words without spaces.
plan() {
  planned_labels+=("$1")
  shift
  planned_commands+=("$*")
}

run_plan() {
  local labels=("${planned_labels[@]}") commands=("${planned_commands[@]}") index
  planned_labels=()
  planned_commands=()
  for index in "${!labels[@]}"; do
    local words
    read -ra words <<<"${commands[index]}"
    step "[$((index + 1))/${#labels[@]}] ${labels[index]}" "${words[@]}"
  done
}

# step LABEL COMMAND...: runs the command with its output in a log that is shown only when it fails.
step() {
  local label=$1 began=$SECONDS log pid progress status=0
  shift
  mkdir -p "$cache_dir/log"
  log=$(mktemp "$cache_dir/log/$(date +%H%M%S)-${1##*/}-XXXX")
  # A process group of its own, so that an interrupt ends all of it and lets it clean up.
  set -m
  ("$@") </dev/null >"$log" 2>&1 &
  set +m
  pid=$!
  trap 'interrupt "$pid" "$log"' HUP INT TERM
  show_progress "$pid" "$label" "$began" &
  progress=$!
  wait "$pid" || status=$?
  { kill "$progress" && wait "$progress"; } 2>/dev/null || true
  trap - HUP INT TERM
  if ((status != 0)); then
    say "$label ... failed after $(elapsed_since "$began"); the end of $log:"
    tail -n 30 "$log" >&2
    exit "$status"
  fi
  rm -f "$log"
  say "$(start_of_line)$label ... $(elapsed_since "$began")"
}

interrupt() {
  say "$(start_of_line)interrupted"
  kill -- "-$1" 2>/dev/null || true
  wait "$1" || true
  rm -f "$2"
  exit 130
}

start_of_line() { if [[ -t 2 ]]; then printf '\r\033[K'; fi; }

# A terminal sees the time run, a log file a line now and then.
show_progress() {
  local pid=$1 label=$2 began=$3 next=30
  while kill -0 "$pid" 2>/dev/null; do
    if [[ -t 2 ]]; then
      printf '%s%s ... %s' "$(start_of_line)" "$label" "$(elapsed_since "$began")" >&2
    elif ((SECONDS - began >= next)); then
      say "$label ... $(elapsed_since "$began") so far"
      next=$((next + 30))
    fi
    sleep 0.2
  done
}

# await SECONDS WHAT COMMAND...: repeats the command until it succeeds.
await() {
  local limit=$1 what=$2 deadline=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      say "$what did not happen within $limit s"
      return 1
    fi
    sleep 0.1
  done
}

# lock NAME: until this process ends, no other process on this machine holds it.
lock() {
  local path=$cache_dir/lock/$1 descriptor
  [[ -z ${locks[$1]:-} ]] || return 0
  mkdir -p "$cache_dir/lock"
  while true; do
    exec {descriptor}>"$path"
    if ! flock --nonblock "$descriptor"; then
      say "waiting for another process to release the lock $path"
      flock "$descriptor"
    fi
    # Its last holder may have removed it.
    [[ ! $path -ef /proc/self/fd/$descriptor ]] || break
    exec {descriptor}>&-
  done
  locks[$1]=$descriptor
}

remove_lock() { rm -f "$cache_dir/lock/$1"; }
declare -A locks=()

# What lives on must not keep the locks.
without_locks() {
  local descriptor
  for descriptor in "${locks[@]}"; do exec {descriptor}>&-; done
  "$@"
}
