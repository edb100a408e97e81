import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.KafkaMessageFactory;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Counts leads by workspace and source, exactly once: a subscriber to copy. See ../README.md.
 *
 * <p>usage: Subscriber [--until-end] STATE_FILE
 */
public final class Subscriber implements AutoCloseable {
  private static final ObjectMapper JSON = new ObjectMapper();

  private final String topic;
  private final KafkaConsumer<byte[], byte[]> consumer;
  private final Connection state;
  private final PreparedStatement movePosition;
  private final PreparedStatement create;
  private final PreparedStatement update;

  /** An event in a form that this reader doesn't know. */
  private static final class NewerSchema extends Exception {
    private static final long serialVersionUID = 1;

    NewerSchema(int version) {
      super("has schema version " + version);
    }
  }

  /** What counts here of an event. A source that isn't given stays; one that is null is cleared. */
  private record Change(
      boolean created, String event, String workspace, String lead, boolean given, String source, Long expected) {}

  public static void main(String[] args) {
    boolean untilEnd = args.length == 2 && args[0].equals("--until-end");
    String brokers = System.getenv("KAFKA_BROKERS");
    if (brokers == null || args.length != (untilEnd ? 2 : 1) || args[args.length - 1].startsWith("-")) {
      System.err.println("usage: KAFKA_BROKERS=HOST:PORT Subscriber [--until-end] STATE_FILE");
      System.exit(2);
    }
    String topic = System.getenv().getOrDefault("LEADS_TOPIC", "leads.events.v1");
    try (var subscriber = new Subscriber(brokers, topic, args[args.length - 1])) {
      subscriber.run(untilEnd);
    } catch (Exception error) {
      System.err.println("error: " + error.getMessage());
      System.exit(1);
    }
  }

  private Subscriber(String brokers, String topic, String file) throws Exception {
    this.topic = topic;
    // No group: nothing is joined and nothing is committed, positions are ours.
    consumer = new KafkaConsumer<>(
        Map.of(
            "bootstrap.servers", brokers,
            "enable.auto.commit", "false",
            // A log without our position is another log, or has lost records: an error, not a new start.
            "auto.offset.reset", "none"),
        new ByteArrayDeserializer(),
        new ByteArrayDeserializer());
    state = DriverManager.getConnection("jdbc:sqlite:" + file);
    try (var statement = state.createStatement()) {
      for (String sql : schema().split(";\n")) statement.execute(sql);
    }
    state.setAutoCommit(false);
    movePosition = state.prepareStatement(
        "UPDATE positions SET next_offset = ?2 + 1 WHERE partition = ?1 AND next_offset <= ?2");
    // The rules for readers of docs/events.md. Of two creations the first stands.
    create = state.prepareStatement("INSERT INTO leads VALUES (?, ?, ?, 1, ?) ON CONFLICT DO NOTHING");
    update = state.prepareStatement("""
        UPDATE leads SET version = version + 1, last_event_id = ?1,
               source = CASE WHEN ?2 THEN ?3 ELSE source END
         WHERE workspace_id = ?4 AND lead_id = ?5
           AND last_event_id <> ?1                           -- a duplicate
           AND version = coalesce(?6, version)               -- too late for If-Match""");
  }

  private static String schema() throws IOException {
    try (var file = Subscriber.class.getResourceAsStream("/state.sql")) {
      return new String(file.readAllBytes(), StandardCharsets.UTF_8);
    }
  }

  private void run(boolean untilEnd) throws Exception {
    Map<TopicPartition, Long> ends = resume();
    while (!untilEnd || !positions().entrySet().stream().allMatch(at -> at.getValue() >= ends.get(at.getKey()))) {
      for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) apply(record);
      state.commit();
    }
    try (var rows = state.createStatement().executeQuery("SELECT line FROM report ORDER BY line")) {
      var out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
      while (rows.next()) out.print(rows.getString(1) + "\n");
      out.flush();
    }
  }

  /** Assigns every partition from its stored position; gives the ends of the log as of now. */
  private Map<TopicPartition, Long> resume() throws SQLException {
    List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
        .map(info -> new TopicPartition(topic, info.partition()))
        .toList();
    try (var insert = state.prepareStatement("INSERT OR IGNORE INTO positions VALUES (?, 0)")) {
      for (TopicPartition partition : partitions) {
        insert.setInt(1, partition.partition());
        insert.execute();
      }
    }
    state.commit();
    Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
    consumer.assign(partitions);
    for (var at : positions().entrySet()) {
      long end = ends.get(at.getKey());
      if (at.getValue() > end) {
        throw new IllegalStateException(at.getKey() + " ends at " + end + ", the state is at " + at.getValue()
            + ": it is of another log");
      }
      consumer.seek(at.getKey(), at.getValue());
    }
    return ends;
  }

  private Map<TopicPartition, Long> positions() throws SQLException {
    var positions = new HashMap<TopicPartition, Long>();
    try (var statement = state.createStatement();
        var rows = statement.executeQuery("SELECT partition, next_offset FROM positions")) {
      while (rows.next()) positions.put(new TopicPartition(topic, rows.getInt(1)), rows.getLong(2));
    }
    return positions;
  }

  /** Applies a record, in the transaction that moves the position behind it. */
  private void apply(ConsumerRecord<byte[], byte[]> record) throws SQLException {
    String place = record.partition() + ":" + record.offset();
    if (execute(movePosition, record.partition(), record.offset()) == 0) return; // read twice
    Change change;
    try {
      change = read(record);
    } catch (NewerSchema error) {
      throw new IllegalStateException(
          place + " " + error.getMessage() + ", this reader knows 1: update it, and it goes on from here");
    } catch (Exception error) { // the SDK, JSON and a missing field each have their own
      System.err.println("passed over " + place + ", which is no event: " + error.getClass().getSimpleName());
      return;
    }
    if (change == null) return;
    if (change.created()) {
      execute(create, change.workspace(), change.lead(), change.source(), change.event());
    } else {
      execute(update, change.event(), change.given(), change.source(), change.workspace(), change.lead(),
          change.expected());
    }
  }

  /** Reads an event; null for a type that was added to the log. */
  private static Change read(ConsumerRecord<byte[], byte[]> record) throws Exception {
    CloudEvent event = KafkaMessageFactory.createReader(record).toEvent();
    boolean created = event.getType().equals("LeadCreated");
    if (!created && !event.getType().equals("LeadUpdated")) return null;
    JsonNode body = JSON.readTree(event.getData().toBytes());
    int version = body.required("schema_version").intValue();
    if (version != 1) throw new NewerSchema(version);
    // All of a new lead, or what is given of a known one.
    JsonNode fields = body.required(created ? "lead" : "changes");
    JsonNode expected = body.path("expected_version");
    return new Change(
        created,
        event.getId(),
        body.required("workspace_id").textValue(),
        event.getSubject(),
        fields.has("source"),
        fields.path("source").textValue(),
        expected.isNumber() ? expected.longValue() : null);
  }

  private static int execute(PreparedStatement statement, Object... values) throws SQLException {
    for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
    return statement.executeUpdate();
  }

  @Override
  public void close() throws SQLException {
    consumer.close();
    state.close();
  }
}
