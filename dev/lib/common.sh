# shellcheck shell=bash
# What dev/stack and dev/run share: messages, processes, locks, the watchdog.
# Written for bash 3.2, which is what macOS has.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
LIB=$ROOT/dev/lib
STACK=$ROOT/.stack

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}
usage_error() {
  say "error: $*"
  exit 2
}
sys() { perl "$LIB/sys.pl" "$@"; }

# --- processes: always by id, and only where the id still is the process it was written for ---

# alive PIDFILE MARKER: prints the id if that process runs and MARKER stands in its command line.
alive() {
  local pid args
  [ -s "$1" ] && read -r pid <"$1" || return 1
  for _ in {1..50}; do
    args=$(ps -ww -o args= -p "$pid" 2>/dev/null) || return 1
    case $args in
      *"$2"*) printf '%s\n' "$pid"; return ;;
      # In the midst of an exec there is no command line: ps shows the program's name in brackets.
      \[*\]) sleep 0.01 ;;
      *) return 1 ;;
    esac
  done
  return 1
}

# tree PID: its id and those of all processes that descend from it.
tree() {
  ps -A -o pid= -o ppid= | awk -v root="$1" '
    { parent[$1] = $2 }
    END { for (pid in parent) { p = pid; while (p != root && p in parent) p = parent[p]; if (p == root) print pid } }'
}

# signal_tree SIGNAL PID: also the group that PID leads, where orphans of the tree still are.
signal_tree() {
  local pids
  pids=$(tree "$2")
  # shellcheck disable=SC2086 # one word an id
  kill "-$1" "-$2" $pids 2>/dev/null || true
}

gone() {
  kill -0 "$1" 2>/dev/null || return 0
  case $(ps -o stat= -p "$1" 2>/dev/null) in
    '') true ;;
    # Its first thread has ended. Others, where Linux lists any, still hold its sockets and files.
    Z*) set -- /proc/"$1"/task/*; [ $# -le 1 ] ;;
    *) false ;;
  esac
}

# gone_within SECONDS PID...
gone_within() {
  local end=$((SECONDS + $1)) pid
  shift
  for pid in "$@"; do
    until gone "$pid"; do
      [ "$SECONDS" -lt "$end" ] || return 1
      sleep 0.05
    done
  done
}

# holder PORT: who listens there, where lsof can tell.
holder() {
  local who
  who=$(lsof -nP -iTCP:"$1" -sTCP:LISTEN -Fpc 2>/dev/null | awk '/^p/ { p = substr($0, 2) } /^c/ { print substr($0, 2) " (process " p ")"; exit }') || true
  [ -z "$who" ] || printf ' by %s' "$who"
}

# --- locks: held on open file 9, so that they end with their holder, even after kill -9 ---

take_lock() { # NAME SECONDS
  local file=$STACK/lock/$1 code
  mkdir -p "$STACK/lock"
  while :; do
    exec 9>>"$file"
    code=0
    sys lock 9 "$file" "$2" || code=$?
    case $code in
      0) return ;;
      3) ;; # a wipe deleted the file while we waited
      *) die "another process has held $file for $2 s" ;;
    esac
  done
}
release_lock() { exec 9>&-; }

# --- the watchdog: a process of its own session that outlives even a kill -9 of this shell ---

# It reads what it would have to do from open file 8. "done" ends it; the end of the file without
# "done" means that this shell is gone, and it tears down in its place.
start_watchdog() { # NAME [--wipe]
  exec 8> >(exec perl "$LIB/sys.pl" session "$ROOT/dev/stack" __watch --name "$@" >/dev/null 2>&1 9>&-)
}
stop_watchdog() {
  { echo "done" >&8; } 2>/dev/null || true
  exec 8>&-
}
# What the watchdog is to end, with all that it started; and that this has ended by itself: its id may
# soon be another process's.
watch() { # process|ended PID
  { echo "$1 $2" >&8; } 2>/dev/null || true
}

# --- one command in front, which a signal to this shell reaches at once ---

COMMAND_PID=

# run_command CMD...: the shell waits in the background of CMD, since bash puts off its traps for as
# long as something runs in front of it.
run_command() {
  local code=0
  perl "$LIB/sys.pl" attached "$@" <&0 6>&- 8>&- 9>&- &
  COMMAND_PID=$!
  watch process "$COMMAND_PID"
  wait "$COMMAND_PID" || code=$?
  watch ended "$COMMAND_PID"
  # Orphans of its process group, if it led one.
  kill -TERM "-$COMMAND_PID" 2>/dev/null || true
  COMMAND_PID=
  return "$code"
}

# end_command [SIGNAL]: ends what run_command waits for, with a few seconds for its own tidying up.
end_command() {
  [ -n "$COMMAND_PID" ] || return 0
  end_tree "$COMMAND_PID" "${1:-TERM}"
  wait "$COMMAND_PID" 2>/dev/null || true
  COMMAND_PID=
}

end_tree() { # PID SIGNAL
  local pids
  pids=$(tree "$1")
  # On a terminal Ctrl-C has reached the command already; a second one could cut its tidying short.
  if [ "$2" != INT ] || [ ! -t 0 ]; then signal_tree "$2" "$1"; fi
  # shellcheck disable=SC2086 # one word an id
  gone_within 5 $pids || signal_tree TERM "$1"
  # shellcheck disable=SC2086
  gone_within 3 $pids || kill -KILL $pids 2>/dev/null || true
  signal_tree KILL "$1"
}
