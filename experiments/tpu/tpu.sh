#!/usr/bin/env bash
# Creates a TPU slice, trains and evaluates on it and deletes it. docs/tpu.md describes the steps.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: experiments/tpu/tpu.sh COMMAND [ARGUMENT ...]

  create                  request the slice and wait until it is active
  install                 copy this working tree to every host and install it with TPU and bucket support; prints what
                          it leaves out
  train ARGUMENT..        run `python -m block_recurrent train ...` on every host in the background; again: continue
  evaluate ARGUMENT..     the same for `evaluate`; also: compare, score, generate
  logs                    follow the first host's output
  status                  show the state of the slice, and what runs on each host
  stop                    make the command save and stop (stop `supervise` first: it would restart training)
  supervise TRAIN_ARG..   create, install, train and watch; requests a preempted slice again and restarts training that
                          was stopped, was killed or lost a host, such as one that has rebooted: the run continues.
                          Exits with training's exit code
  fetch URL FOLDER        copy a workdir from gs://, without its checkpoints
  delete                  delete the slice

Settings, as environment variables:
  NAME       name of the slice                              (default: block-recurrent)
  ZONE       zone, such as us-central2-b                    (required)
  TYPE       accelerator type, such as v4-32 or v6e-16      (required by create and supervise)
  RUNTIME    software version of the TPU VM                 (default: the one for TYPE)
  PROJECT    Google Cloud project                           (default: gcloud's)
  SPOT=1     request a preemptible slice
  RESERVED=1 take the slice from the project's reservation
  SERVICE_ACCOUNT  account of the hosts, NAME@PROJECT.iam.gserviceaccount.com; it needs rights on the bucket
                   (default: the Compute Engine default account)
  NETWORK, SUBNETWORK  network of the hosts                 (default: the project's network `default`)
  INTERNAL_IPS=1   hosts without external addresses; ssh then goes through IAP, and `install` needs Cloud NAT
  HOST_ENVIRONMENT  settings on the hosts, NAME=VALUE ...   (in addition to experiments/tpu/host.env)
  DRY_RUN=1  print the commands without running them

To use an existing TPU VM, set its NAME and ZONE and skip `create`.
TEXT
}

NAME=${NAME:-block-recurrent}
LOG=block_recurrent.log
# Expanded on the hosts. The pattern matches the process of a command, but neither the shell that starts it nor one that
# searches for it.
# shellcheck disable=SC2016
PYTHON='"$HOME/block_recurrent_venv/bin/python"'
# shellcheck disable=SC2016
PROCESS='"^$HOME/block_recurrent_venv/bin/python -m block_recurrent (train|evaluate|compare|score|generate) "'
# Prints one line for each host.
STATE="if pgrep -f $PROCESS >/dev/null; then echo 'host: running'; elif [[ -s train.exit ]]; then \
echo \"host: ended \$(cat train.exit)\"; else echo 'host: nothing runs'; fi"

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
  tpu tpu-vm ssh "$NAME" --worker=all ${INTERNAL_IPS:+--tunnel-through-iap} --command="$1"
}

runtime() {
  case "$TYPE" in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    tpu7x*) fail "TYPE=$TYPE: TPU7x slices exist on GKE only; see experiments/tpu/jobset.yaml" ;;
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

# Prints a line for each host; fails if a host is unreachable.
host_states() {
  gcloud compute tpus tpu-vm ssh "$NAME" --worker=all --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
    ${INTERNAL_IPS:+--tunnel-through-iap} --command="$STATE" 2>/dev/null | grep '^host: '
}

# Prints the exit code of training on the first host; nothing while training runs or if the host is unreachable.
exit_code() {
  gcloud compute tpus tpu-vm ssh "$NAME" --worker=0 --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
    ${INTERNAL_IPS:+--tunnel-through-iap} --command='cat train.exit' 2>/dev/null | tail -n 1
}

notify() {
  echo "$(date +%H:%M:%S) $NAME: $1"
}

create() {
  need TYPE
  local version=${RUNTIME:-}
  [[ -n "$version" ]] || version=$(runtime)
  tpu queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$version" \
    ${SPOT:+--spot} ${RESERVED:+--reserved} ${SERVICE_ACCOUNT:+--service-account="$SERVICE_ACCOUNT"} \
    ${NETWORK:+--network="$NETWORK"} ${SUBNETWORK:+--subnetwork="$SUBNETWORK"} ${INTERNAL_IPS:+--internal-ips}
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
  run python3 experiments/tpu/pack.py "$archive"
  tpu tpu-vm scp "$archive" "$NAME:block_recurrent.tar.gz" --worker=all ${INTERNAL_IPS:+--tunnel-through-iap}
  run rm "$archive"
  on_every_host 'set -e
    rm -rf block_recurrent_code && mkdir block_recurrent_code && tar -xzf block_recurrent.tar.gz -C block_recurrent_code
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --clear --python 3.11 block_recurrent_venv
    python3 -m uv pip install --quiet --python block_recurrent_venv -c block_recurrent_code/requirements.lock \
      -e "block_recurrent_code[tpu,gcs]"
    block_recurrent_venv/bin/python -c "import jax; print(jax.__version__, jax.local_device_count(), \"local devices\")"'
}

# Fails unless the folders that a command writes are on the bucket. Options may be written `--workdir X` or `--workdir=X`.
check_arguments() {
  local command=$1 workdir='' option='' word
  shift
  [[ $# -gt 0 ]] || fail "$command: give the arguments of python -m block_recurrent $command"
  for word in "$@"; do
    case "$word" in
      --workdir | --checkpoint | --out) option=$word && continue ;;
      --workdir=* | --checkpoint=* | --out=*) option=${word%%=*} && word=${word#*=} ;;
      *) [[ -n "$option" ]] || continue ;;
    esac
    [[ "$word" == gs://* ]] || fail "$command: $option must be on gs://, because the hosts of a slice share no disk"
    [[ "$option" != --workdir ]] || workdir=$word
    option=''
  done
  [[ "$command" != train || -n "$workdir" ]] || fail "train: give --workdir gs://BUCKET/FOLDER"
}

# Runs a command of the package on every host in the background.
start() {
  check_arguments "$@"
  local arguments
  arguments=$(printf ' %q' "$@")
  # The lock keeps a host from starting a second command. `supervise` reads the exit code from train.exit. All streams of
  # the background job are redirected, because the ssh connection would stay open otherwise.
  on_every_host "cd block_recurrent_code || exit; { flock --nonblock 9 || exit 0; trap '' HUP; rm -f ../train.exit; \
set -a; ${HOST_ENVIRONMENT:-:}; . experiments/tpu/host.env; set +a; \
$PYTHON -m block_recurrent$arguments; echo \$? >../train.exit; } \
9>>../train.lock >>../$LOG 2>&1 </dev/null & sleep 5; tail -n 3 ../$LOG"
}

status() {
  tpu queued-resources describe "$NAME"
  on_every_host "pgrep -af $PROCESS || echo 'nothing runs here'"
}

# Commands that a preemption may interrupt run as separate scripts, so that their failure does not end this one.
supervise() {
  need ZONE
  need TYPE
  check_arguments train "$@"
  if [[ -n "${DRY_RUN:-}" ]]; then
    create
    install
    start train "$@"
    return
  fi
  while true; do
    get_slice
    if ! nothing_runs || { "$0" install && "$0" train "$@"; }; then
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

# True if every host answers, and training runs on none.
nothing_runs() {
  local states
  states=$(host_states) && [[ "$states" != *running* ]]
}

# Returns when training must be restarted; exits when training has ended by itself.
watch() {
  local state code lost=0
  while state=$(queue_state) && [[ "$state" == ACTIVE || "$state" == UNKNOWN ]]; do
    sleep 60
    # A host that has rebooted neither runs training nor has its exit code. Seen twice: not just between the two.
    if [[ "$(host_states)" == *"nothing runs"* ]]; then lost=$((lost + 1)); else lost=0; fi
    if [[ "$lost" -ge 2 ]]; then
      notify "a host runs nothing, as after a reboot; restarting training on all hosts"
      end_everywhere
      return
    fi
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

# Ends the processes that wait for a lost host; they can no longer save together.
end_everywhere() {
  on_every_host "pkill -TERM -f $PROCESS; sleep 10; pkill -KILL -f $PROCESS; true" || true
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
  create | install | status | supervise | fetch | delete) "$command" "$@" ;;
  train | evaluate | compare | score | generate) start "$command" "$@" ;;
  logs) tpu tpu-vm ssh "$NAME" --worker=0 ${INTERNAL_IPS:+--tunnel-through-iap} --command="tail -n 50 -f $LOG" ;;
  stop) on_every_host "pkill -TERM -f $PROCESS || echo 'nothing runs here'" ;;
  help | -h | --help) usage ;;
  *) fail "$command: no such command; see tpu.sh --help" ;;
esac
