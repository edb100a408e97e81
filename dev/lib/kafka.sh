# shellcheck shell=bash
# Kafka: one node, or several that replicate. Each is broker and controller in one process. $DIR is the
# instance's folder. The first node's name is "kafka", the others' "kafka-2", "kafka-3".

# kafka_count: how many nodes the instance has, or is to have.
kafka_count() { if [ -s "$DIR/brokers" ]; then cat "$DIR/brokers"; else echo 1; fi; }

kafka_names() {
  local id count
  count=$(kafka_count)
  echo kafka
  for ((id = 2; id <= count; id++)); do echo "kafka-$id"; done
}

# kafka_id NAME: the node's id. kafka_suffix NAME: what its variables end in.
kafka_id() { case $1 in kafka) echo 1 ;; *) echo "${1#kafka-}" ;; esac; }
kafka_suffix() { case $1 in kafka) ;; *) echo "_${1#kafka-}" ;; esac; }

# kafka_addresses PREFIX: each node's 127.0.0.1:PORT, the ports out of variables such as KAFKA_PORT_2;
# with an id in front where the prefix is CONTROLLER_PORT.
kafka_addresses() {
  local name variable all=
  for name in $(kafka_names); do
    variable=$1$(kafka_suffix "$name")
    all=$all,$([ "$1" != CONTROLLER_PORT ] || echo "$(kafka_id "$name")@")127.0.0.1:${!variable}
  done
  printf '%s\n' "${all#,}"
}

# kafka_take_count N: how many nodes, once for all.
kafka_take_count() {
  if [ -e "$DIR/ports" ] && [ "$(kafka_count)" != "$1" ]; then
    # shellcheck disable=SC2153 # the caller's
    die "$NAME was made with $(kafka_count) broker(s): dev/stack down --wipe --name $NAME"
  fi
  printf '%s\n' "$1" >"$DIR/brokers"
}

kafka_alive() { alive "$DIR/$1.pid" "$DIR/$1.properties"; }
kafka_ready() { grep -q 'Kafka Server started' "$DIR/$1.log" 2>/dev/null; }

# kafka_controller: the node that leads the controllers, by what they say themselves. Clients are told a
# node at random.
kafka_controller() {
  local name epoch highest=-1 found=
  for name in $(kafka_names); do
    kafka_alive "$name" >/dev/null || continue
    epoch=$(sed -n 's/.*Becoming the active controller at epoch \([0-9]*\),.*/\1/p' "$DIR/$name.log" | tail -n 1)
    if [ "${epoch:--1}" -gt "$highest" ]; then highest=$epoch found=$name; fi
  done
  echo "$found"
}

kafka_cluster_id() {
  if [ ! -s "$DIR/cluster" ]; then
    head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c 1-22 >"$DIR/cluster.new"
    mv "$DIR/cluster.new" "$DIR/cluster"
  fi
  cat "$DIR/cluster"
}

kafka_launch() {
  local java=${JAVA_HOME:+$JAVA_HOME/bin/}java heap='-Xms256m -Xmx512m'
  # Several share what one would have.
  [ "$(kafka_count)" = 1 ] || heap='-Xms128m -Xmx256m'
  kafka_properties "$1" >"$DIR/$1.properties"
  rotate "$DIR/$1.log"
  # Formatting and broker in one process id, so that whoever ends it ends either. The mark of a
  # finished formatting comes last: an interrupted one is done again.
  # shellcheck disable=SC2016 # expanded by that shell
  (cd "$DIR" && sys daemon "$1.log" "$1.pid" "" sh -c '
    set -e
    if [ ! -e "$7/formatted" ]; then
      rm -rf "$7"
      mkdir "$7"
      "$1" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$2" "$3" kafka.tools.StorageTool format \
        --cluster-id "$5" --config "$4" ${6:+"$6"}
      : >"$7/formatted"
    fi
    exec "$1" $8 -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
      -cp "$2" "$3" kafka.Kafka "$4"' \
    kafka "$java" "$DIST/kafka/*" "-Dlog4j2.configurationFile=$LIB/kafka-log4j2.properties" \
    "$DIR/$1.properties" "$(kafka_cluster_id)" "$(kafka_credentials)" "$1" "$heap")
}

kafka_properties() { # NAME
  local count insync=1
  count=$(kafka_count)
  [ "$count" = 1 ] || insync=2
  cat <<PROPERTIES
process.roles=broker,controller
node.id=$(kafka_id "$1")
controller.quorum.voters=$(kafka_addresses CONTROLLER_PORT)
controller.listener.names=CONTROLLER
$(kafka_listeners "$1")
log.dirs=$1/data

auto.create.topics.enable=false
default.replication.factor=$count
min.insync.replicas=$insync
offsets.topic.num.partitions=4
offsets.topic.replication.factor=$count
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=$count
transaction.state.log.min.isr=$insync
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=$count
share.coordinator.state.topic.min.isr=$insync
group.initial.rebalance.delay.ms=0
# After a SIGKILL the controller refuses the new broker until the old one's session is over (9 s).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# The default of 128 MiB is a quarter of this broker's heap.
log.cleaner.dedupe.buffer.size=8388608
PROPERTIES
  [ "$count" = 1 ] || cat <<PROPERTIES
# All are stopped at once: the last ones would ask in vain for a controller's leave.
controlled.shutdown.enable=false
PROPERTIES
}
