# shellcheck shell=bash
# The servers' binaries, fetched once per version of dev/pom.xml into .stack/dist/.

platform() {
  case $(uname -s)/$(uname -m) in
    Linux/x86_64 | Linux/amd64) echo linux-amd64 ;;
    Linux/aarch64 | Linux/arm64) echo linux-arm64v8 ;;
    Darwin/x86_64) echo darwin-amd64 ;;
    Darwin/arm64) echo darwin-arm64v8 ;;
    *) die "no PostgreSQL binaries for $(uname -s) on $(uname -m): set KAFKA_BROKERS and DATABASE_URL to servers of your own" ;;
  esac
}

# ensure_dist: sets DIST. What is at its final name is whole: it is filled beside and moved there.
ensure_dist() {
  local platform sum log
  platform=$(platform)
  sum=$(cksum <"$ROOT/dev/pom.xml")
  DIST=$STACK/dist/${sum%% *}-$platform
  [ ! -d "$DIST" ] || return 0
  take_lock .dist 1800
  if [ ! -d "$DIST" ]; then
    say "fetching Kafka and PostgreSQL (once) ..."
    log=$STACK/dist/fetch.log
    rm -rf "$DIST.part"
    mkdir -p "$DIST.part"
    mvn -B --no-transfer-progress -f "$ROOT/dev/pom.xml" generate-resources \
      "-Ddist=$DIST.part" "-Dpostgres.platform=$platform" >"$log" 2>&1 </dev/null ||
      fetch_failed "$log"
    (cd "$DIST.part/postgres" && tar xJf ./*.txz && rm ./*.txz) >>"$log" 2>&1 || fetch_failed "$log"
    mv "$DIST.part" "$DIST"
  fi
  release_lock
}

fetch_failed() {
  tail -n 20 "$1" >&2
  explain_log "$1"
  die "the servers could not be fetched; the whole output is in $1"
}

# explain_log LOG [PORT]: the causes that a reader should not have to find in a log himself.
explain_log() {
  # A full disk may have had no room for the message either.
  local full
  full=$(df -Pk "$STACK" "${PG_HOME:-$STACK}" | awk 'NR > 1 && $4 < 1024 { print $6 " has " $4 " KiB left" }' | sort -u | paste -s -d ';' -)
  if [ -n "$full" ] || grep -qi 'No space left on device' "$1"; then say "The disk is full${full:+: $full}."; fi
  if [ -n "${2:-}" ] && grep -qE 'Address already in use|BindException' "$1"; then
    say "Port $2 is taken$(holder "$2")."
  fi
}
