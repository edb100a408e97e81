# shellcheck shell=bash
# What dev/stack does with an instance, both servers together. $NAME, $DIR and, but for "up" and
# "exec", the instance's lock are the caller's.

STARTED='' # the services that this run started, to be stopped again if it can't finish

# services: the servers of the instance. server VERB SERVICE: kafka_VERB of a node, or postgres_VERB.
services() {
  kafka_names
  echo postgres
}
server() { case $2 in postgres) "postgres_$1" ;; *) "kafka_$1" "$2" ;; esac; }

# port_variables SERVICE: the one that clients connect to first.
port_variables() {
  case $1 in
    postgres) echo POSTGRES_PORT ;;
    *) echo "KAFKA_PORT$(kafka_suffix "$1") CONTROLLER_PORT$(kafka_suffix "$1")" ;;
  esac
}
port_of() { # SERVICE
  local variable
  variable=$(port_variables "$1")
  variable=${variable%% *}
  echo "${!variable}"
}

rotate() { if [ -e "$1" ]; then mv "$1" "$1.1"; fi; }

# given: are the servers ones that the caller brought? Those of another instance here don't count:
# tests run inside "exec" and start more instances.
given() {
  local env
  if [ -z "${KAFKA_BROKERS:-}${DATABASE_URL:-}" ]; then return 1; fi
  if [ -z "${KAFKA_BROKERS:-}" ] || [ -z "${DATABASE_URL:-}" ]; then
    usage_error "only one of KAFKA_BROKERS and DATABASE_URL is set: set both to use your servers, or none"
  fi
  for env in "$STACK"/*/env; do
    if [ -e "${env%/env}/ports" ] && grep -qxF "KAFKA_BROKERS=$KAFKA_BROKERS" "$env"; then return 1; fi
  done
}

new_password() {
  (umask 077 && od -An -N 16 -tx1 /dev/urandom | tr -d ' \n' >"$DIR/password.new")
  mv "$DIR/password.new" "$DIR/password"
}

write_env() { # BROKERS URL [MORE]
  (umask 077 && printf 'KAFKA_BROKERS=%s\nDATABASE_URL=%s\n%s' "$1" "$2" "${3:+$3$'\n'}" >"$DIR/env.new")
  mv "$DIR/env.new" "$DIR/env"
}

# new_instance: fails if there is one. Made within an "exec", it ends with that.
new_instance() {
  mkdir -p "$STACK"
  mkdir "$DIR" 2>/dev/null || return 1
  if [ -n "${LEADS_STACK_OWNER:-}" ]; then printf '%s\n' "$LEADS_STACK_OWNER" >"$DIR/owner"; fi
}

instance_up() {
  local service
  if given; then
    [ -z "$TLS$BROKERS" ] || usage_error "--tls and --brokers are for servers started here, and KAFKA_BROKERS and DATABASE_URL are set"
    new_instance || true
    write_env "$KAFKA_BROKERS" "$DATABASE_URL"
    say "$NAME: KAFKA_BROKERS and DATABASE_URL are set, nothing is started"
    return
  fi
  [ -z "$TLS" ] || tls_check "$TLS"
  "$ROOT/dev/prerequisites" stack
  ensure_dist
  take_lock "$NAME" 120
  trap 'up_interrupted INT' INT
  trap 'up_interrupted TERM' TERM
  trap 'up_interrupted HUP' HUP
  new_instance || true
  [ -z "$TLS" ] || tls_take "$TLS" "$SASL"
  [ -z "$BROKERS" ] || kafka_take_count "$BROKERS"
  [ -s "$DIR/password" ] || new_password
  postgres_home
  instance_ports
  for service in $(services); do ensure_running "$service"; done
  for service in $(services); do await_ready "$service"; done
  write_env "$(kafka_addresses KAFKA_PORT)" \
    "postgres://leads:$(cat "$DIR/password")@127.0.0.1:$POSTGRES_PORT/leads$(tls_on && echo '?sslmode=verify-full')" \
    "$(tls_env)"
  trap - INT TERM HUP
  release_lock
}

up_interrupted() {
  trap '' INT TERM HUP
  stop_started
  trap - "$1"
  kill "-$1" $$
}

stop_started() {
  local service
  for service in $STARTED; do stop "$service" KILL; done
  STARTED=
}

# instance_ports: sets the ports. They are kept for as long as they can be: while everything is down
# somebody else may have taken one.
instance_ports() {
  local service variable ports missing=
  for service in $(services); do
    for variable in $(port_variables "$service"); do printf -v "$variable" ''; done
  done
  # shellcheck disable=SC1091 # written below
  if [ -s "$DIR/ports" ]; then . "$DIR/ports"; fi
  for service in $(services); do
    for variable in $(port_variables "$service"); do
      server alive "$service" >/dev/null || keep_port "$variable"
      [ -n "${!variable}" ] || missing="$missing $variable"
    done
  done
  [ -n "$missing" ] || return 0
  # Under a lock of its own, so that two starts side by side see each other's choice.
  exec 7>>"$STACK/lock/.ports"
  sys lock 7 "$STACK/lock/.ports" 30
  # shellcheck disable=SC2046,SC2086 # one word a port and a name
  ports=$(sys ports "$(set -- $missing && echo $#)" $(cat "$STACK"/*/ports 2>/dev/null | sed 's/.*=//')) || die "no free ports"
  for variable in $missing; do
    printf -v "$variable" %s "${ports%% *}"
    ports=${ports#* }
  done
  for service in $(services); do
    for variable in $(port_variables "$service"); do printf '%s=%s\n' "$variable" "${!variable}"; done
  done >"$DIR/ports.new"
  mv "$DIR/ports.new" "$DIR/ports"
  exec 7>&-
  case $missing in *CONTROLLER_PORT*) stop_kafka ;; esac
}

# Nodes that still run would look for the others' controllers at the old ports.
stop_kafka() {
  local service
  for service in $(kafka_names); do ask_to_stop "$service" TERM; done
  for service in $(kafka_names); do await_stopped "$service"; done
}

keep_port() { # VARIABLE: emptied if its port is taken
  local port=${!1}
  if [ -n "$port" ] && ! sys bindable 127.0.0.1 "$port"; then
    say "$NAME: port $port is taken$(holder "$port"), choosing another one"
    printf -v "$1" ''
  fi
}

ensure_running() { # SERVICE
  local pid
  if pid=$(server alive "$1"); then
    signal_tree CONT "$pid" # it may have been paused
  else
    STARTED="$STARTED $1"
    server launch "$1"
  fi
}

await_ready() { # SERVICE
  local end=$((SECONDS + 120)) port
  port=$(port_of "$1")
  until server ready "$1"; do
    if ! server alive "$1" >/dev/null; then not_ready "$1" "$port" "$1 ended while starting"; fi
    if [ "$SECONDS" -ge "$end" ]; then not_ready "$1" "$port" "$1 was not ready within 120 s"; fi
    sleep 0.1
  done
}

not_ready() { # SERVICE PORT TEXT
  say "--- the end of $DIR/$1.log"
  tail -n 20 "$DIR/$1.log" >&2 || true
  say "---"
  explain_log "$DIR/$1.log" "$2"
  stop_started
  die "$3"
}

# ask_to_stop SERVICE SIGNAL, then await_stopped: two steps, so that both servers stop side by side.
ask_to_stop() {
  local pid
  pid=$(server alive "$1") || return 0
  # KILL takes PostgreSQL's own processes along: they would hold the data for another moment.
  if [ "$2" = KILL ]; then
    kill_at_once "$pid"
  else
    # To the group: that is the server, or the shell that still prepares its data.
    kill "-$2" "-$pid" 2>/dev/null || true
    signal_tree CONT "$pid"
  fi
}

kill_at_once() { # PID: stopped first, so that nothing new is forked while we look at the tree
  kill -STOP "$1" 2>/dev/null || true
  signal_tree KILL "$1"
}

await_stopped() { # SERVICE
  local pid
  if pid=$(server alive "$1") && ! gone_within 30 "$pid"; then
    say "$NAME: $1 did not end within 30 s, killing it"
    kill_at_once "$pid"
    gone_within 10 "$pid" || die "$1 (process $pid) can't be ended"
  fi
  rm -f "$DIR/$1.pid"
}

stop() { # SERVICE SIGNAL
  ask_to_stop "$@"
  await_stopped "$1"
}

instance_down() { # [WIPE]
  local service
  [ -d "$DIR" ] || { rm -f "$STACK/lock/$NAME"; return 0; }
  postgres_home_of_disk
  if [ -n "${1:-}" ]; then
    # Nobody will read the data again: no tidy end. SIGQUIT is PostgreSQL's "immediate".
    for service in $(kafka_names); do ask_to_stop "$service" KILL; done
    ask_to_stop postgres QUIT
  else
    for service in $(kafka_names); do ask_to_stop "$service" TERM; done
    ask_to_stop postgres INT # "fast": doesn't wait for its clients to leave
  fi
  for service in $(services); do await_stopped "$service"; done
  [ -n "${1:-}" ] || return 0
  postgres_forget_segment
  rm -rf "$PG_HOME" "$DIR"
  rm -f "$STACK/lock/$NAME"
}

# services_known SERVICE...
services_known() {
  local service all
  [ -s "$DIR/ports" ] || die "there is no instance $NAME that dev/stack started"
  all=$(services | paste -s -d ' ' -)
  for service; do
    case " $all " in *" $service "*) ;; *) die "$NAME has no $service" ;; esac
  done
  postgres_home_of_disk
}

running() { # SERVICE
  server alive "$1" || die "$NAME: $1 does not run"
}

# What is done to several is done to all of them at once.

services_kill() {
  local service pid pids=
  services_known "$@"
  for service; do
    pid=$(running "$service")
    pids="$pids $pid"
  done
  for service; do ask_to_stop "$service" KILL; done
  # By their ids: a process that is ending has no command line any more by which it could be told.
  # shellcheck disable=SC2086 # one word a process
  gone_within 10 $pids || die "$NAME: processes$pids can't be ended"
  for service; do await_stopped "$service"; done
}

services_start() {
  local service variable
  services_known "$@"
  postgres_home
  # shellcheck disable=SC1091 # written by instance_ports
  . "$DIR/ports"
  for service; do
    if ! server alive "$service" >/dev/null; then
      for variable in $(port_variables "$service"); do
        sys bindable 127.0.0.1 "${!variable}" || die "$NAME: port ${!variable} of $service is taken$(holder "${!variable}")"
      done
    fi
    ensure_running "$service"
  done
  for service; do await_ready "$service"; done
}

# services_pause: each server and every process of it, as a machine that hangs.
services_pause() {
  local service pid pids=
  services_known "$@"
  for service; do
    pid=$(running "$service")
    kill -STOP "$pid"
    signal_tree STOP "$pid"
    pids="$pids $pid"
  done
  for pid in $pids; do
    until case $(ps -o stat= -p "$pid") in T*) true ;; *) false ;; esac; do sleep 0.02; done
  done
}

services_resume() {
  local service pid
  services_known "$@"
  for service; do
    pid=$(running "$service")
    signal_tree CONT "$pid"
  done
}

instance_status() {
  local service pid state controller='' code=0
  if [ ! -d "$DIR" ]; then
    echo "$NAME: no such instance"
    return 1
  fi
  if [ ! -e "$DIR/ports" ]; then
    [ -e "$DIR/env" ] || { echo "$NAME: not started"; return 1; }
    echo "$NAME: servers given by KAFKA_BROKERS and DATABASE_URL"
    return
  fi
  postgres_home_of_disk
  # shellcheck disable=SC1091 # written by instance_ports
  . "$DIR/ports"
  if [ "$(kafka_count)" != 1 ]; then controller=$(kafka_controller); fi
  for service in $(services); do
    state=stopped
    if pid=$(server alive "$service"); then
      state=starting
      if server ready "$service"; then state=ready; fi
      case $(ps -o stat= -p "$pid") in T*) state=paused ;; esac
      state="$state, process $pid$([ "$service" != "$controller" ] || echo ', controller')"
    fi
    case $state in ready*) ;; *) code=1 ;; esac
    printf '%s: %-8s 127.0.0.1:%s %s\n' "$NAME" "$service" "$(port_of "$service")" "$state"
  done
  return "$code"
}

instance_exec() { # CMD...
  local code=0
  new_instance || die "exec starts a fresh instance and there is one named $NAME: pick another name, or dev/stack down --wipe --name $NAME"
  SIGNAL=TERM
  trap exec_teardown EXIT
  trap 'SIGNAL=INT; exit 130' INT
  trap 'SIGNAL=TERM; exit 143' TERM
  trap 'SIGNAL=HUP; exit 129' HUP
  start_watchdog "$NAME" --wipe
  # In a process of its own: it has traps of its own, and a signal to this shell must reach it.
  run_command "$ROOT/dev/stack" up --name "$NAME" ${BROKERS:+--brokers "$BROKERS"} ${TLS:+--tls "$TLS"} ${SASL:+--sasl} >/dev/null || exit $?
  set -a
  # shellcheck disable=SC1091 # written by "up"
  . "$DIR/env"
  set +a
  export LEADS_STACK_OWNER=$NAME
  run_command "$@" || code=$?
  exit "$code"
}

exec_teardown() {
  local code=$?
  trap '' INT TERM HUP
  end_command "$SIGNAL"
  wipe_owned
  stop_watchdog
  exit "$code"
}

# wipe_owned: this instance and those started by what ran inside of it.
wipe_owned() {
  local mine=$NAME owner
  for owner in "$STACK"/*/owner; do
    if [ -e "$owner" ] && [ "$(cat "$owner")" = "$mine" ]; then
      NAME=$(basename "$(dirname "$owner")") DIR=$(dirname "$owner")
      take_lock "$NAME" 150
      instance_down yes
      release_lock
    fi
  done
  NAME=$mine DIR=$STACK/$mine
  take_lock "$NAME" 150
  instance_down yes
  release_lock
}

# instance_watch: the other end of start_watchdog.
instance_watch() {
  local word pid=''
  local processes=''
  trap '' INT TERM HUP
  while read -r word pid; do
    case $word in
      "done") exit ;;
      process) processes="$processes $pid " ;;
      ended) processes=${processes/ $pid /} ;;
    esac
  done
  for pid in $processes; do
    end_tree "$pid" TERM
  done
  if [ -n "$WIPE" ]; then
    wipe_owned
  else
    take_lock "$NAME" 150
    instance_down
    release_lock
  fi
}
