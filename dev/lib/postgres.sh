# shellcheck shell=bash
# PostgreSQL. It refuses to run as root; for root it runs as the user "nobody". $DIR is the
# instance's folder, $NAME its name.

# postgres_home: sets PG_HOME (the data's folder), PG_BIN and PG_USER ("" is the caller). For a root
# whose clone is where "nobody" can't go (a home of root, say), home and binaries are under /var/lib.
postgres_home() {
  PG_HOME=$DIR/postgres PG_BIN=$DIST/postgres/bin PG_USER=
  [ "$(id -u)" = 0 ] || return 0
  PG_USER=nobody
  if [ -d "$PG_HOME/data" ]; then
    # Whoever made the data: the clone's owner may have, before root came.
    # shellcheck disable=SC2012 # stat differs between Linux and macOS
    PG_USER=$(ls -ld "$PG_HOME/data" | awk '{ print $3 }')
  elif ! sys as nobody test -x "$PG_BIN/initdb" 2>/dev/null; then
    away
    PG_HOME=$AWAY/$NAME
    PG_BIN=$AWAY/dist/${DIST##*/}/bin
    [ -d "${PG_BIN%/bin}" ] || copy_binaries_away
  fi
}

# away: sets AWAY, this clone's folder outside of it. Its name is written down in the clone together
# with the clone's path, so that a copy of the clone gets a folder of its own.
away() {
  local clone=""
  AWAY=
  if [ -s "$STACK/away" ]; then { read -r clone && read -r AWAY; } <"$STACK/away"; fi
  if [ "$clone" != "$ROOT" ] || [ ! -d "$AWAY" ]; then
    mkdir -p /var/lib/leads-stack
    AWAY=$(mktemp -d /var/lib/leads-stack/XXXXXXXX)
    chmod 755 /var/lib/leads-stack "$AWAY"
    printf '%s\n%s\n' "$ROOT" "$AWAY" >"$STACK/away.new"
    mv "$STACK/away.new" "$STACK/away"
  fi
}

copy_binaries_away() {
  local to=${PG_BIN%/bin}
  mkdir -p "${to%/*}"
  rm -rf "$to.part.$$"
  cp -R "$DIST/postgres" "$to.part.$$"
  mv "$to.part.$$" "$to" 2>/dev/null || rm -rf "$to.part.$$" # another instance's "up" was first
}

# The home of an instance as it is on disk, without deciding on a new one.
postgres_home_of_disk() {
  local clone="" away=""
  PG_HOME=$DIR/postgres
  [ ! -d "$PG_HOME" ] && [ -s "$STACK/away" ] || return 0
  { read -r clone && read -r away; } <"$STACK/away"
  if [ "$clone" = "$ROOT" ] && [ -d "$away/$NAME" ]; then PG_HOME=$away/$NAME; fi
}

postgres_alive() { alive "$DIR/postgres.pid" "$PG_HOME/data"; }

# The line that pg_ctl waits for too. The id tells this server's file from a dead one's.
postgres_ready() {
  local pid
  read -r pid <"$DIR/postgres.pid" &&
    awk -v pid="$pid" 'NR == 1 && $1 != pid { exit 1 } NR == 8 { exit $1 != "ready" } END { if (NR < 8) exit 1 }' \
      "$PG_HOME/data/postmaster.pid" 2>/dev/null
}

postgres_launch() {
  if [ ! -d "$PG_HOME" ]; then
    mkdir -p "$PG_HOME"
    chmod 700 "$PG_HOME"
    [ -z "$PG_USER" ] || chown "$PG_USER" "$PG_HOME"
  fi
  cp "$DIR/password" "$PG_HOME/password"
  [ -z "$PG_USER" ] || chown "$PG_USER" "$PG_HOME/password"
  postgres_tls
  postgres_clear_remains
  rotate "$DIR/postgres.log"
  # As with Kafka: one process id from the first step on, and "data" is there when it is whole.
  # shellcheck disable=SC2016 # expanded by that shell
  (cd "$PG_HOME" && sys daemon "$DIR/postgres.log" "$DIR/postgres.pid" "$PG_USER" sh -c '
    set -e
    if [ ! -d "$2" ]; then
      rm -rf "$2.new"
      "$1/initdb" -D "$2.new" --username=leads --pwfile=password --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8
      echo "CREATE DATABASE leads" | "$1/postgres" --single -D "$2.new" postgres
      mv "$2.new" "$2"
    fi
    if [ -d tls ]; then
      tls=$PWD/tls
      set -- "$@" -c ssl=on -c ssl_cert_file="$tls/server.pem" -c ssl_key_file="$tls/server.key" \
        -c hba_file="$tls/pg_hba.conf"
    fi
    bin=$1 data=$2 port=$3
    shift 3
    exec "$bin/postgres" -D "$data" -p "$port" "$@" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
      -c max_connections=300 -c timezone=UTC -c log_timezone=UTC' \
    postgres "$PG_BIN" "$PG_HOME/data" "$POSTGRES_PORT")
}

# postgres_segment STATE: is the System V segment that postmaster.pid names there, "used" by a process
# or "unused"? (Linux only; elsewhere neither.)
postgres_segment() {
  local key id
  [ -r /proc/sysvipc/shm ] && read -r key id <<<"$(sed -n 7p "$PG_HOME/data/postmaster.pid" 2>/dev/null)" || return 1
  awk -v key="$key" -v id="$id" -v state="$1" '
    $1 == key && $2 == id && (state == "used") == ($7 > 0) { print id; found = 1 }
    END { exit !found }' /proc/sysvipc/shm
}

# After a SIGKILL the kernel keeps the segment until the next start on the same data. Data about to be
# deleted has no next start, and a system has some thousand segments in all.
postgres_forget_segment() {
  local id
  if id=$(postgres_segment unused); then ipcrm -m "$id" 2>/dev/null || true; fi
}

# postgres_clear_remains: after a crash a new server refuses the data while processes of the old one
# hold the segment (they notice within moments), and for as long as the old one's process id is
# there, if only as a zombie: in a container whose first process reaps nobody, that is for ever.
postgres_clear_remains() {
  local pid end=$((SECONDS + 10))
  [ -s "$PG_HOME/data/postmaster.pid" ] || return 0
  while postgres_segment used >/dev/null && [ "$SECONDS" -lt "$end" ]; do sleep 0.05; done
  read -r pid <"$PG_HOME/data/postmaster.pid"
  case $(ps -o stat= -p "$pid" 2>/dev/null) in
    Z*)
      ! postgres_segment used >/dev/null || return 0
      postgres_forget_segment
      rm -f "$PG_HOME/data/postmaster.pid"
      ;;
  esac
}
