#!/usr/bin/env bash
# From a Google Cloud project to a training run on a TPU slice, and back. docs/tpu.md walks through it.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: experiments/tpu/tpu.sh COMMAND [ARGUMENT ...]

  create                  queue the slice, and wait until it is there
  install                 copy this checkout's last commit to every host and install it with its TPU support
  train TRAIN_ARGUMENT..  start `python -m block_recurrent train ...` on every host, in the background; again: continue
  logs                    follow the first host's output
  status                  the slice's state, and whether training runs on each host
  stop                    ask training to save and end (end `supervise` first: it would start training again)
  supervise TRAIN_ARG..   create, install, train, watch; a preempted slice is asked for again, and training that was asked
                          to end, was killed or lost a host is started again: the run continues. Ends with the training's exit code
  fetch URL FOLDER        copy a workdir's metrics and newest results from gs://
  delete                  give the slice back

Settings, as environment variables:
  NAME       of the slice                                   (default: block-recurrent)
  ZONE       such as us-central2-b                          (required)
  TYPE       accelerator type, such as v4-32 or v6e-16      (required by create and supervise)
  RUNTIME    of the TPU VM                                  (default: the one for TYPE)
  PROJECT    Google Cloud project                           (default: gcloud's own)
  SPOT=1     a preemptible slice
  HOST_ENVIRONMENT  settings on the hosts, NAME=VALUE ...   (besides those of experiments/tpu/host.env)
  DRY_RUN=1  print the commands and run none of them

An existing TPU VM is used by giving its NAME and ZONE and leaving out `create`.
TEXT
}

NAME=${NAME:-block-recurrent}
LOG=block_recurrent.log
# A host's own words. The pattern of training's process matches neither the shell that starts it nor one that looks for it.
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

# Prints a command so that it can be pasted, and runs it unless this is a dry run.
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

# The slice's state in Google Cloud's words; MISSING if there is none, UNKNOWN if it could not be asked for.
queue_state() {
  local said
  if said=$(gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
    --format='value(state.state)' 2>&1); then
    echo "${said##*$'\n'}"
  elif [[ "$said" == *NOT_FOUND* ]]; then
    echo MISSING
  else
    echo UNKNOWN
  fi
}

# How training ended on the first host; nothing while it runs, or if the host could not be asked.
exit_code() {
  gcloud compute tpus tpu-vm ssh "$NAME" --worker=0 --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
    --command='cat train.exit' 2>/dev/null | tail -n 1
}

say() {
  echo "$(date +%H:%M:%S) $NAME: $1"
}

create() {
  need TYPE
  local version=${RUNTIME:-}
  [[ -n "$version" ]] || version=$(runtime)
  tpu queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$version" \
    ${SPOT:+--spot}
  [[ -n "${DRY_RUN:-}" ]] || wait_until_there
}

wait_until_there() {
  local state
  while state=$(queue_state) && [[ "$state" != ACTIVE ]]; do
    case "$state" in
      FAILED | SUSPENDED | MISSING) fail "the slice $NAME did not come: $state; tpu.sh delete, then create again" ;;
    esac
    say "$state"
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
  [[ " $* " == *" --workdir gs://"* ]] || fail "train: --workdir must be on gs://: the hosts of a slice share no disk"
}

train() {
  check_training "$@"
  local arguments
  arguments=$(printf ' %q' "$@")
  # A host on which training runs already keeps it: the lock is taken. How training ends is kept for `supervise`. All that
  # runs in the background is redirected, or the connection would stay open.
  on_every_host "cd block_recurrent_code || exit; { flock --nonblock 9 || exit 0; trap '' HUP; rm -f ../train.exit; \
set -a; ${HOST_ENVIRONMENT:-:}; . experiments/tpu/host.env; set +a; \
$PYTHON -m block_recurrent train$arguments; echo \$? >../train.exit; } \
9>>../train.lock >>../$LOG 2>&1 </dev/null & sleep 5; tail -n 3 ../$LOG"
}

status() {
  tpu queued-resources describe "$NAME"
  on_every_host "pgrep -af $TRAINING || echo 'no training runs here'"
}

# Commands that a preemption may interrupt are scripts of their own: their failure does not end the watch.
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
      say "could not be set up; trying again"
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
      say "$state; asking for another slice"
      delete
      create
      ;;
    *) wait_until_there ;;
  esac
}

# Returns when training has to be started again; ends the script when it has come to its own end.
watch() {
  local state code
  while state=$(queue_state) && [[ "$state" == ACTIVE || "$state" == UNKNOWN ]]; do
    sleep 60
    code=$(exit_code) || continue
    [[ -n "$code" ]] || continue
    on_every_host "tail -n 5 $LOG" || true
    case "$code" in # block_recurrent/errors.py, and what a shell says of a process that was killed from outside
      0) say "training has ended" && exit 0 ;;
      4 | 75 | 137 | 143) say "training ended with exit code $code; starting it again" && return ;;
      *) say "training failed with exit code $code; see the log above" && exit "$code" ;;
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
