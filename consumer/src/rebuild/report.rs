//! How a rebuild tells of itself: a bar on a terminal, JSON lines elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Between two JSON lines of one phase.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// The rate is that of the last so many looks.
const LOOKS: usize = 25;

/// Tells of the phases of a rebuild, to standard output.
pub(super) struct Reporter {
    bar: Option<ProgressBar>,
    generation: Cell<i32>,
    looks: RefCell<VecDeque<(Instant, i64)>>,
    last_line: Cell<Option<Instant>>,
}

impl Reporter {
    /// A bar when both outputs are a terminal, JSON lines otherwise.
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        Self {
            bar: terminal.then(|| ProgressBar::new(0)),
            generation: Cell::new(0),
            looks: RefCell::default(),
            last_line: Cell::new(None),
        }
    }

    /// Names the generation that all further lines are about.
    pub(super) fn about(&self, generation: i32) {
        self.generation.set(generation);
    }

    /// A phase without a measure begins.
    pub(super) fn begin(&self, phase: &str, words: &str) {
        self.looks.borrow_mut().clear();
        self.last_line.set(None);
        match &self.bar {
            Some(bar) => bar.println(words),
            None => self.line(phase, &json!({ "message": words })),
        }
    }

    /// How far a phase is. Gives events a second, lately.
    pub(super) fn progress(&self, phase: &str, done: i64, total: i64) -> f64 {
        let rate = self.rate(done);
        if let Some(bar) = &self.bar {
            let count = |number: i64| u64::try_from(number).unwrap_or(0);
            bar.set_style(style());
            bar.set_length(count(total));
            bar.set_position(count(done));
            bar.set_message(format!("{phase}: {rate:.0} events/s, {}", eta(rate, total - done)));
        } else if self.last_line.get().is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line.set(Some(Instant::now()));
            let eta = seconds_left(rate, total - done);
            let rate = rate.round();
            self.line(
                phase,
                &json!({ "done": done, "total": total, "per_second": rate, "eta_seconds": eta }),
            );
        }
        rate
    }

    /// What came of it.
    pub(super) fn tell(&self, phase: &str, words: &str, figures: &Value) {
        if let Some(bar) = &self.bar {
            return bar.println(words);
        }
        let mut fields = figures.clone();
        fields["message"] = json!(words);
        self.line(phase, &fields);
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, phase: &str, fields: &Value) {
        let mut line = json!({ "phase": phase, "generation": self.generation.get() });
        if let (Some(line), Some(fields)) = (line.as_object_mut(), fields.as_object()) {
            line.extend(fields.clone());
        }
        println!("{line}");
    }

    #[allow(clippy::cast_precision_loss)]
    fn rate(&self, done: i64) -> f64 {
        let mut looks = self.looks.borrow_mut();
        looks.push_back((Instant::now(), done));
        if looks.len() > LOOKS {
            looks.pop_front();
        }
        match (looks.front(), looks.back()) {
            (Some((first, before)), Some((last, now))) if last > first => {
                (now - before) as f64 / last.duration_since(*first).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {percent}% {human_pos}/{human_len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn seconds_left(rate: f64, left: i64) -> Option<i64> {
    (rate >= 1.0).then(|| (left.max(0) as f64 / rate).ceil() as i64)
}

fn eta(rate: f64, left: i64) -> String {
    match seconds_left(rate, left) {
        Some(seconds) if seconds >= 3600 => {
            format!("{} h {} min left", seconds / 3600, seconds % 3600 / 60)
        }
        Some(seconds) if seconds >= 60 => {
            format!("{} min {} s left", seconds / 60, seconds % 60)
        }
        Some(seconds) => format!("{seconds} s left"),
        None => "no progress".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_in_words() {
        assert_eq!(eta(0.0, 5), "no progress");
        assert_eq!(eta(10.0, 95), "10 s left");
        assert_eq!(eta(10.0, 725), "1 min 13 s left");
        assert_eq!(eta(1.0, 3_700), "1 h 1 min left");
    }
}
