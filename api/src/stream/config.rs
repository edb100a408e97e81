//! The options of streams.

use std::time::Duration;

use clap::Args;

use crate::config::parse_size;

/// The options of streams.
#[derive(Debug, Clone, Args)]
pub struct StreamArgs {
    /// Most event streams at once
    #[arg(long, env = "MAX_STREAMS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_streams: u32,
    /// Most event streams of one API key at once
    #[arg(long, env = "MAX_STREAMS_PER_KEY", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_streams_per_key: u32,
    /// Most readers of the log at once for streams that begin in the past, and for histories; others
    /// wait for their turn
    #[arg(long, env = "MAX_REPLAYS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub max_replays: u16,
    /// Most bytes of events that wait for one stream; a slower reader is cut
    #[arg(long, env = "STREAM_BUFFER", default_value = "1MiB", value_parser = parse_size)]
    pub stream_buffer: usize,
    /// Pause after which a quiet stream gets a comment, at least 100ms
    #[arg(long, env = "STREAM_HEARTBEAT", default_value = "15s", value_parser = humantime::parse_duration)]
    pub stream_heartbeat: Duration,
    /// Longest time for a reader to take what was written, at least 1s
    #[arg(long, env = "STREAM_WRITE_TIMEOUT", default_value = "30s", value_parser = humantime::parse_duration)]
    pub stream_write_timeout: Duration,
}

/// Bounds of streams.
#[derive(Debug, Clone, Copy)]
pub struct StreamConfig {
    /// Most streams.
    pub most: usize,
    /// Most streams of one key.
    pub most_of_key: usize,
    /// Most readers of the past.
    pub replays: usize,
    /// Most bytes that wait for one stream.
    pub buffer: usize,
    /// Pause after which a quiet stream gets a comment.
    pub heartbeat: Duration,
    /// Longest time for a reader to take what was written.
    pub write_timeout: Duration,
}

impl StreamConfig {
    /// Checks the options.
    ///
    /// # Errors
    /// Names the variable and the fix.
    pub fn new(args: &StreamArgs) -> Result<Self, String> {
        for (variable, time, least) in [
            ("STREAM_HEARTBEAT", args.stream_heartbeat, Duration::from_millis(100)),
            ("STREAM_WRITE_TIMEOUT", args.stream_write_timeout, Duration::from_secs(1)),
        ] {
            if time < least {
                let (time, least) =
                    (humantime::format_duration(time), humantime::format_duration(least));
                return Err(format!("{variable}={time}: must be at least {least}"));
            }
        }
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            most: count(args.max_streams),
            most_of_key: count(args.max_streams_per_key),
            replays: usize::from(args.max_replays),
            buffer: args.stream_buffer,
            heartbeat: args.stream_heartbeat,
            write_timeout: args.stream_write_timeout,
        })
    }
}
