#!/usr/bin/env bash
# Creates a TPU slice, trains on it and deletes it. docs/tpu.md describes the steps.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: experiments/tpu/tpu.sh COMMAND [ARGUMENT ...]

  create                  request the slice and wait until it is active
  install                 copy the last commit of this checkout to every host and install it with TPU support
  train TRAIN_ARGUMENT..  run `python -m block_recurrent train ...` on every host in the background; again: continue
  logs                    follow the first host's output
  status                  show the state of the slice, and whether training runs on each host
  stop                    make training save and stop (stop `supervise` first: it would restart training)
  supervise TRAIN_ARG..   create, install, train and watch; requests a preempted slice again and restarts training that
                          was stopped, was killed or lost a host: the run continues. Exits with training's exit code
  fetch URL FOLDER        copy a workdir from gs://, without its checkpoints
  delete                  delete the slice

Settings, as environment variables:
  NAME       name of the slice                              (default: block-recurrent)
  ZONE       zone, such as us-central2-b                    (required)
  TYPE       accelerator type, such as v4-32 or v6e-16      (required by create and supervise)
  RUNTIME    software version of the TPU VM                 (default: the one for TYPE)
  PROJECT    Google Cloud project                           (default: gcloud's)
  SPOT=1     request a preemptible slice
  HOST_ENVIRONMENT  settings on the hosts, NAME=VALUE ...   (in addition to experiments/tpu/host.env)
  DRY_RUN=1  print the commands without running them

To use an existing TPU VM, set its NAME and ZONE and skip `create`.
TEXT
}

NAME=${NAME:-block-recurrent}
LOG=block_recurrent.log
# Expanded on the hosts. The pattern matches the training process, but neither the shell that starts it nor one that
# searches for it.
# shellcheck disable=SC2016
PYTHON='"$HOME/block_recurrent_venv/bin/python"'
# shellcheck disable=SC2016
TRAINING='"^$HOME/block_recurrent_venv/bin/python -m block_recurrent train"'

fail() {
  echo "tpu.sh: $1" >&2
  exit 2
}

need() {
  [[ -n "${!1:-}" ]] || fail "$1 is not set; see tpu.sh --help"
}

# Prints a command in a form that can be pasted, and runs it unless DRY_RUN is set.
run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  [[ -n "${DRY_RUN:-}" ]] || "$@"
}

tpu() {
  need ZONE
  run gcloud compute tpus "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}
}

on_every_host() {
  tpu tpu-vm ssh "$NAME" --worker=all --command="$1"
}

runtime() {
  case "$TYPE" in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) fail "TYPE=$TYPE: no runtime is known; set RUNTIME, or TYPE to v4-N, v5litepod-N, v5p-N or v6e-N" ;;
  esac
}

# Prints the slice's state as Google Cloud names it; MISSING if the slice does not exist, UNKNOWN if the query failed.
queue_state() {
  local reply
  if reply=$(gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
    --format='value(state.state)' 2>&1); then
    echo "${reply##*$'\n'}"
  elif [[ "$reply" == *NOT_FOUND* ]]; then
    echo MISSING
  else
    echo UNKNOWN
  fi
}

# Prints the exit code of training on the first host; nothing while training runs or if the host is unreachable.
exit_code() {
  gcloud compute tpus tpu-vm ssh "$NAME" --worker=0 --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
    --command='cat train.exit' 2>/dev/null | tail -n 1
}

notify() {
  echo "$(date +%H:%M:%S) $NAME: $1"
}

create() {
  need TYPE
  local version=${RUNTIME:-}
  [[ -n "$version" ]] || version=$(runtime)
  tpu queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$version" \
    ${SPOT:+--spot}
  [[ -n "${DRY_RUN:-}" ]] || wait_until_active
}

wait_until_active() {
  local state
  while state=$(queue_state) && [[ "$state" != ACTIVE ]]; do
    case "$state" in
      FAILED | SUSPENDED | MISSING) fail "the slice $NAME was not created: $state; run tpu.sh delete, then tpu.sh create" ;;
    esac
    notify "$state"
    sleep 30
  done
}

install() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  run git archive --format=tar.gz --output="$archive" HEAD
  tpu tpu-vm scp "$archive" "$NAME:block_recurrent.tar.gz" --worker=all
  run rm "$archive"
  on_every_host 'set -e
    rm -rf block_recurrent_code && mkdir block_recurrent_code && tar -xzf block_recurrent.tar.gz -C block_recurrent_code
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --clear --python 3.11 block_recurrent_venv
    python3 -m uv pip install --quiet --python block_recurrent_venv -c block_recurrent_code/requirements.lock \
      -e "block_recurrent_code[tpu,gcs]"
    block_recurrent_venv/bin/python -c "import jax; print(jax.__version__, jax.local_device_count(), \"local devices\")"'
}

check_training() {
  [[ $# -gt 0 ]] || fail "train: give the arguments of python -m block_recurrent train"
  [[ " $* " == *" --workdir gs://"* ]] || fail "train: --workdir must be on gs://, because the hosts of a slice share no disk"
}

train() {
  check_training "$@"
  local arguments
  arguments=$(printf ' %q' "$@")
  # The lock keeps a host from starting training twice. `supervise` reads the exit code from train.exit. All streams of
  # the background job are redirected, because the ssh connection would stay open otherwise.
  on_every_host "cd block_recurrent_code || exit; { flock --nonblock 9 || exit 0; trap '' HUP; rm -f ../train.exit; \
set -a; ${HOST_ENVIRONMENT:-:}; . experiments/tpu/host.env; set +a; \
$PYTHON -m block_recurrent train$arguments; echo \$? >../train.exit; } \
9>>../train.lock >>../$LOG 2>&1 </dev/null & sleep 5; tail -n 3 ../$LOG"
}

status() {
  tpu queued-resources describe "$NAME"
  on_every_host "pgrep -af $TRAINING || echo 'no training runs here'"
}

# Commands that a preemption may interrupt run as separate scripts, so that their failure does not end this one.
supervise() {
  need ZONE
  need TYPE
  check_training "$@"
  if [[ -n "${DRY_RUN:-}" ]]; then
    create
    install
    train "$@"
    return
  fi
  while true; do
    get_slice
    if on_every_host "pgrep -f $TRAINING >/dev/null" || { "$0" install && "$0" train "$@"; }; then
      watch
    else
      notify "setup failed; trying again"
      sleep 60
    fi
  done
}

get_slice() {
  local state
  state=$(queue_state)
  case "$state" in
    ACTIVE | UNKNOWN) ;;
    MISSING) create ;;
    SUSPENDING | SUSPENDED | FAILED)
      notify "$state; requesting another slice"
      delete
      create
      ;;
    *) wait_until_active ;;
  esac
}

# Returns when training must be restarted; exits when training has ended by itself.
watch() {
  local state code
  while state=$(queue_state) && [[ "$state" == ACTIVE || "$state" == UNKNOWN ]]; do
    sleep 60
    code=$(exit_code) || continue
    [[ -n "$code" ]] || continue
    on_every_host "tail -n 5 $LOG" || true
    case "$code" in # block_recurrent/errors.py; 137 and 143: killed by a signal
      0) notify "training has ended" && exit 0 ;;
      4 | 75 | 137 | 143) notify "training ended with exit code $code; restarting it" && return ;;
      *) notify "training failed with exit code $code; see the log above" && exit "$code" ;;
    esac
  done
}

fetch() {
  [[ $# -eq 2 && "$1" == gs://* ]] || fail "fetch: give a workdir on gs:// and a local folder"
  run mkdir -p "$2"
  run gcloud storage rsync --recursive "$1" "$2" --exclude='checkpoints/.*'
}

delete() {
  tpu queued-resources delete "$NAME" --force --quiet
}

command=${1:-help}
shift || true
case "$command" in
  create | install | train | status | supervise | fetch | delete) "$command" "$@" ;;
  logs) tpu tpu-vm ssh "$NAME" --worker=0 --command="tail -n 50 -f $LOG" ;;
  stop) on_every_host "pkill -TERM -f $TRAINING || echo 'no training runs here'" ;;
  help | -h | --help) usage ;;
  *) fail "$command: no such command; see tpu.sh --help" ;;
esac
