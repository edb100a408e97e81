//! A Kafka record as a `CloudEvent`, binary mode. The SDK's own binding is for rdkafka 0.38; these are
//! its traits for the rdkafka of today.

use cloudevents::Event;
use cloudevents::event::SpecVersion;
use cloudevents::message::{
    BinaryDeserializer, BinarySerializer, Error, MessageAttributeValue, Result,
};
use rdkafka::message::{Headers, Message};

/// Reads a record's headers and value.
pub(crate) fn to_event(record: &impl Message) -> Result<Event> {
    Record(record).into_event()
}

struct Record<'a, M>(&'a M);

impl<M: Message> BinaryDeserializer for Record<'_, M> {
    fn deserialize_binary<R: Sized, V: BinarySerializer<R>>(self, event: V) -> Result<R> {
        let headers = self.0.headers().ok_or(Error::WrongEncoding {})?;
        let texts = || headers.iter().map(|header| (header.key, text(header.value)));
        let (_, version) =
            texts().find(|(key, _)| *key == "ce_specversion").ok_or(Error::WrongEncoding {})?;
        let version = SpecVersion::try_from(version?)?;
        let attributes = version.attribute_names();
        let mut event = event.set_spec_version(version)?;
        for (key, value) in texts() {
            let name = match key {
                "content-type" => "datacontenttype",
                // A path of the API; the SDK takes whole URLs only.
                "ce_specversion" | "ce_dataschema" => continue,
                _ => match key.strip_prefix("ce_") {
                    Some(name) => name,
                    None => continue,
                },
            };
            let value = MessageAttributeValue::String(value?.to_owned());
            event = if attributes.contains(&name) {
                event.set_attribute(name, value)?
            } else {
                event.set_extension(name, value)?
            };
        }
        match self.0.payload() {
            Some(value) => event.end_with_data(value.to_vec()),
            None => event.end(),
        }
    }
}

fn text(value: Option<&[u8]>) -> Result<&str> {
    let text = std::str::from_utf8(value.unwrap_or_default());
    text.map_err(|error| Error::Other { source: Box::new(error) })
}
