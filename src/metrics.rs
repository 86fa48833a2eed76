//! Numbers about the daemon's work, in Prometheus' text format.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::record::Outcome;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    drop: String,
    outcome: &'static str,
}

/// The daemon's counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    outcomes: Family<OutcomeLabels, Counter>,
    latency: Histogram,
    lost: Counter,
    queue: Gauge,
    keys: Gauge,
    keys_expiring: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        // Half a millisecond to about half a minute, each bucket twice the one before.
        let buckets = (0..17).map(|power| 0.0005 * f64::from(1 << power));
        let metrics = Self {
            registry: Registry::with_prefix("signdrop"),
            outcomes: Family::default(),
            latency: Histogram::new(buckets),
            lost: Counter::default(),
            queue: Gauge::default(),
            keys: Gauge::default(),
            keys_expiring: Gauge::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let Self {
            registry,
            outcomes,
            latency,
            lost,
            queue,
            keys,
            keys_expiring,
        } = &mut self;
        registry.register(
            "build",
            "The running version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "artifacts",
            "Artifacts that got an outcome, by drop directory and outcome",
            outcomes.clone(),
        );
        registry.register_with_unit(
            "latency",
            "Time from an arrival to its outcome",
            Unit::Seconds,
            latency.clone(),
        );
        registry.register(
            "lost_events",
            "How often the kernel dropped events, each followed by a look at everything",
            lost.clone(),
        );
        registry.register("queue", "Arrivals that wait for a worker", queue.clone());
        registry.register("keys", "Keys in the keystore", keys.clone());
        registry.register(
            "keys_expiring",
            "Keys that have expired or expire within 90 days",
            keys_expiring.clone(),
        );
        self
    }

    /// Counts an artifact that got an outcome, `latency` after it arrived.
    pub fn settled(&self, drop: &str, outcome: Outcome, latency: Duration) {
        self.outcomes
            .get_or_create(&OutcomeLabels {
                drop: drop.to_owned(),
                outcome: outcome.name(),
            })
            .inc();
        self.latency.observe(latency.as_secs_f64());
    }

    /// How many artifacts of a drop directory got an outcome since the start.
    pub fn count(&self, drop: &str, outcome: Outcome) -> u64 {
        self.outcomes
            .get(&OutcomeLabels {
                drop: drop.to_owned(),
                outcome: outcome.name(),
            })
            .map_or(0, |counter| counter.get())
    }

    /// Counts a lost-events report.
    pub fn lost(&self) {
        self.lost.inc();
    }

    /// All numbers as text; `queue`, `keys` and `expiring` are those of now.
    pub fn text(&self, queue: usize, keys: u64, expiring: usize) -> String {
        self.queue.set(i64::try_from(queue).unwrap_or(i64::MAX));
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.keys_expiring
            .set(i64::try_from(expiring).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
