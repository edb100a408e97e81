# shellcheck shell=bash
# One Kafka node, broker and controller in one process. $DIR is the instance's folder.

kafka_alive() { alive "$DIR/kafka.pid" "$DIR/kafka.properties"; }
kafka_ready() { grep -q 'Kafka Server started' "$DIR/kafka.log" 2>/dev/null; }

kafka_launch() {
  local java=${JAVA_HOME:+$JAVA_HOME/bin/}java
  kafka_properties >"$DIR/kafka.properties"
  rotate "$DIR/kafka.log"
  # Formatting and broker in one process id, so that whoever ends it ends either. The mark of a
  # finished formatting comes last: an interrupted one is done again.
  # shellcheck disable=SC2016 # expanded by that shell
  (cd "$DIR" && sys daemon kafka.log kafka.pid "" sh -c '
    set -e
    if [ ! -e kafka/formatted ]; then
      rm -rf kafka
      mkdir kafka
      "$1" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$2" "$3" kafka.tools.StorageTool format \
        --cluster-id "$5" --config "$4" ${6:+"$6"}
      : >kafka/formatted
    fi
    exec "$1" -Xms256m -Xmx512m -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
      -cp "$2" "$3" kafka.Kafka "$4"' \
    kafka "$java" "$DIST/kafka/*" "-Dlog4j2.configurationFile=$LIB/kafka-log4j2.properties" \
    "$DIR/kafka.properties" "$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c 1-22)" "$(kafka_credentials)")
}

kafka_properties() {
  cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$CONTROLLER_PORT
controller.listener.names=CONTROLLER
$(kafka_listeners)
log.dirs=kafka/data

auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# After a SIGKILL the controller refuses the new broker until the old one's session is over (9 s).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# The default of 128 MiB is a quarter of this broker's heap.
log.cleaner.dedupe.buffer.size=8388608
PROPERTIES
}
