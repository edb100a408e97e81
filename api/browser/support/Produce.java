import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Publishes one record as any producer could: BROKERS TOPIC KEY VALUE. Prints partition:offset. */
class Produce {
    public static void main(String[] args) throws Exception {
        var settings = Map.<String, Object>of("bootstrap.servers", args[0], "acks", "all");
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            var record = new ProducerRecord<>(args[1], args[2], args[3]);
            var kept = producer.send(record).get(30, TimeUnit.SECONDS);
            System.out.println(kept.partition() + ":" + kept.offset());
        }
    }
}
