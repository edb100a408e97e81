//! A Kafka that gives the errors a real one can't be made to give: librdkafka's own mock cluster.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureRecord};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::log::{Log, read_all};
use crate::stack::Servers;
use crate::{Record, System};

/// All brokers of the cluster.
const ALL: i32 = -1;

/// Brokers that listen on ports of this process. It has the system's topics: the events topic
/// is empty, the access topic holds the keys that were made so far.
pub struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    servers: Servers,
    events: String,
    partitions: usize,
}

impl std::fmt::Debug for Mock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mock").field("brokers", &self.brokers()).finish_non_exhaustive()
    }
}

impl System {
    /// A mock in the place of this system's Kafka, for `start_api_with(&[("KAFKA_BROKERS", …)])`.
    /// Its brokers are numbered from 1; the first leads everything.
    ///
    /// # Panics
    /// When it can't be set up.
    pub async fn mock_kafka(&self, brokers: i32) -> Mock {
        let cluster = MockCluster::new(brokers).expect("a mock cluster can be made");
        let servers = Servers {
            kafka_brokers: cluster.bootstrap_servers(),
            database_url: String::new(),
            security: Vec::new(),
        };
        let (events, access) = (self.events_topic().to_owned(), self.access_topic());
        let partitions = self.log.partitions(&events);
        for (topic, partitions) in [(&events, partitions), (&access, 1)] {
            let partitions = i32::try_from(partitions).expect("few partitions");
            cluster.create_topic(topic, partitions, 1).expect("a topic of the mock");
            for partition in 0..partitions {
                cluster.partition_leader(topic, partition, Some(1)).expect("a leader");
            }
        }
        let log = Log::new(&servers);
        for record in self.records_of(&access).await {
            let copy = FutureRecord { topic: &access, ..copy_of(&record) };
            log.send(copy).await;
        }
        Mock { cluster, servers, events, partitions }
    }

    /// Writes to the events topic what stands in another Kafka's, so that the consumer projects it.
    pub async fn replay(&self, records: &[Record]) {
        for record in records {
            let headers: Vec<_> = record
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref()))
                .collect();
            self.produce(record.key.as_deref(), record.value.as_deref(), &headers).await;
        }
    }
}

fn copy_of(record: &Record) -> FutureRecord<'_, [u8], [u8]> {
    let mut copy = FutureRecord::to("");
    copy.key = record.key.as_deref();
    copy.payload = record.value.as_deref();
    copy
}

impl Mock {
    /// Its `KAFKA_BROKERS`.
    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// The next requests of a kind get these answers, one each, and take no effect. An entry of
    /// `NO_ERROR` lets one pass.
    pub fn answer(&self, kind: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.cluster.request_errors(kind, errors);
    }

    /// Takes back what [`Mock::answer`] set.
    pub fn heal(&self, kind: RDKafkaApiKey) {
        self.cluster.clear_request_errors(kind);
    }

    /// Every answer comes this much later.
    ///
    /// # Panics
    /// When the mock refuses.
    pub fn delay(&self, by: Duration) {
        self.delay_broker(ALL, by);
    }

    /// Every answer of one broker comes this much later.
    ///
    /// # Panics
    /// When the mock refuses.
    pub fn delay_broker(&self, broker: i32, by: Duration) {
        self.cluster.broker_round_trip_time(broker, by).expect("a delay");
    }

    /// Which broker leads a partition of the events topic from now on; `None` is none.
    ///
    /// # Panics
    /// When the mock refuses.
    pub fn lead(&self, partition: i32, broker: Option<i32>) {
        self.cluster.partition_leader(&self.events, partition, broker).expect("a leader");
    }

    /// Partitions of its events topic.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.partitions).expect("few partitions")
    }

    /// Every record of its events topic.
    ///
    /// # Panics
    /// When it doesn't answer.
    pub async fn records(&self) -> Vec<Record> {
        let (servers, events, partitions) =
            (self.servers.clone(), self.events.clone(), self.partitions);
        let reading = tokio::task::spawn_blocking(move || read_all(&servers, &events, partitions));
        reading.await.expect("reading the topic")
    }
}
