# shellcheck shell=bash
# Certificates, and a password for Kafka. An instance that was made with --tls keeps them in its
# folder, so that every later start of a server has them. $DIR is the instance's folder.

tls_on() { [ -e "$DIR/tls/server.key" ]; }
sasl_on() { [ -e "$DIR/tls/sasl" ]; }

# tls_check FOLDER: before anything is made.
tls_check() {
  local file
  for file in ca.pem server.pem server.key; do
    [ -s "$1/$file" ] || usage_error "--tls needs ca.pem, server.pem and server.key in $1: $file is missing"
  done
  grep -q 'BEGIN PRIVATE KEY' "$1/server.key" ||
    usage_error "$1/server.key is not PKCS#8 PEM: openssl pkcs8 -topk8 -nocrypt -in OLD -out server.key"
  # The env file's values are not quoted: then a shell can source it and "env" can read it.
  case $DIR in *[!A-Za-z0-9/._+-]*) usage_error "--tls writes a path into the env file, and that of $DIR would have to be quoted" ;; esac
}

# tls_take FOLDER SASL ("" or not): before the servers' first start, or to renew the certificates, which
# they read when they start.
tls_take() {
  if [ -e "$DIR/ports" ] && ! tls_on; then
    die "$NAME was made without --tls: dev/stack down --wipe --name $NAME"
  fi
  if [ -e "$DIR/kafka/formatted" ] && [ -n "$2" ] && ! sasl_on; then
    die "$NAME was made without --sasl: dev/stack down --wipe --name $NAME"
  fi
  mkdir -p "$DIR/tls"
  [ -z "$2" ] || : >"$DIR/tls/sasl"
  cp "$1/ca.pem" "$1/server.pem" "$DIR/tls/"
  (umask 077 && cat "$1/server.key" "$1/server.pem" >"$DIR/tls/kafka.pem" && cat "$1/server.key" >"$DIR/tls/server.key")
}

# What clients need besides addresses.
tls_env() {
  tls_on || return 0
  if sasl_on; then
    printf 'KAFKA_SECURITY_PROTOCOL=SASL_SSL\nKAFKA_SASL_MECHANISM=SCRAM-SHA-512\n'
    printf 'KAFKA_SASL_USERNAME=leads\nKAFKA_SASL_PASSWORD=%s\n' "$(cat "$DIR/password")"
  else
    printf 'KAFKA_SECURITY_PROTOCOL=SSL\n'
  fi
  printf 'KAFKA_SSL_CA_LOCATION=%s\nPGSSLROOTCERT=%s\n' "$DIR/tls/ca.pem" "$DIR/tls/ca.pem"
}

# kafka_listeners: clients come over TLS or not at all; what the node says to itself stays plain, on a
# port of loopback that nobody is told.
kafka_listeners() { # NAME of the node
  local suffix client controller
  suffix=$(kafka_suffix "$1")
  client=KAFKA_PORT$suffix controller=CONTROLLER_PORT$suffix
  controller="CONTROLLER://127.0.0.1:${!controller}"
  if ! tls_on; then
    cat <<PROPERTIES
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:${!client},$controller
advertised.listeners=PLAINTEXT://127.0.0.1:${!client}
PROPERTIES
    return
  fi
  cat <<PROPERTIES
inter.broker.listener.name=INTERNAL
listeners=CLIENTS://127.0.0.1:$KAFKA_PORT,INTERNAL://127.0.0.1:0,$controller
advertised.listeners=CLIENTS://127.0.0.1:$KAFKA_PORT,INTERNAL://127.0.0.1:0
listener.security.protocol.map=CLIENTS:$(sasl_on && echo SASL_SSL || echo SSL),INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.clients.ssl.keystore.type=PEM
listener.name.clients.ssl.keystore.location=$DIR/tls/kafka.pem
PROPERTIES
  sasl_on || return 0
  cat <<PROPERTIES
listener.name.clients.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.clients.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
PROPERTIES
}

# kafka_credentials: what the formatting of the data takes to know the user.
kafka_credentials() {
  sasl_on || return 0
  printf -- '--add-scram=SCRAM-SHA-512=[name=leads,password=%s]' "$(cat "$DIR/password")"
}

# postgres_tls: puts what the server needs where its user can read it; PostgreSQL refuses a key that
# others can read too.
postgres_tls() {
  rm -rf "$PG_HOME/tls"
  tls_on || return 0
  mkdir "$PG_HOME/tls"
  cp "$DIR/tls/server.pem" "$DIR/tls/server.key" "$PG_HOME/tls/"
  # No "host" line: without encryption nobody comes in.
  echo 'hostssl all all 127.0.0.1/32 scram-sha-256' >"$PG_HOME/tls/pg_hba.conf"
  chmod 600 "$PG_HOME/tls/server.key"
  [ -z "$PG_USER" ] || chown -R "$PG_USER" "$PG_HOME/tls"
}
