//! What jobs have consumed of models, by pool.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::PoolLabels;
use crate::core::usage::{OTHERS, Usage};

/// Models of a pool that are told apart: programs name them, and each is a time series. What is consumed of more is counted
/// as [`OTHERS`].
pub const MODELS: usize = 16;

/// A model of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct ModelLabels {
    /// Namespace of the pool.
    pub namespace: String,
    /// Name of the pool.
    pub pool: String,
    /// The model.
    pub model: String,
}

/// What was consumed. Cloning shares the figures.
#[derive(Debug, Clone, Default)]
pub struct Consumption {
    input: Family<ModelLabels, Counter>,
    cached: Family<ModelLabels, Counter>,
    output: Family<ModelLabels, Counter>,
    requests: Family<ModelLabels, Counter>,
    cost: Family<ModelLabels, Counter<f64, AtomicU64>>,
    known: Arc<Mutex<HashMap<PoolLabels, BTreeSet<String>>>>,
}

impl Consumption {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "input_tokens",
            "Tokens that jobs report to have sent, cached ones included",
            self.input.clone(),
        );
        registry.register("cached_tokens", "Of these, tokens that providers had cached", self.cached.clone());
        registry.register("output_tokens", "Tokens that jobs report to have got", self.output.clone());
        registry.register("model_requests", "Requests to models that jobs report", self.requests.clone());
        registry.register("cost_usd", "What jobs report to have cost, in US dollars", self.cost.clone());
    }

    /// Adds what a job of this pool has consumed.
    pub fn add(&self, pool: &PoolLabels, usage: &Usage) {
        for (model, consumed) in usage.models() {
            let labels = self.labels(pool, model);
            self.input.get_or_create(&labels).inc_by(consumed.input);
            self.cached.get_or_create(&labels).inc_by(consumed.cached);
            self.output.get_or_create(&labels).inc_by(consumed.output);
            self.requests.get_or_create(&labels).inc_by(consumed.requests);
            if let Some(cost) = consumed.cost {
                self.cost.get_or_create(&labels).inc_by(cost.as_dollars());
            }
        }
    }

    /// Forgets the figures of a pool that was deleted.
    pub(super) fn drop_pool(&self, pool: &PoolLabels) {
        for model in self.known.lock().remove(pool).into_iter().flatten() {
            let labels = labels(pool, model);
            for counter in [&self.input, &self.cached, &self.output, &self.requests] {
                counter.remove(&labels);
            }
            self.cost.remove(&labels);
        }
    }

    fn labels(&self, pool: &PoolLabels, model: &str) -> ModelLabels {
        let mut known = self.known.lock();
        let models = known.entry(pool.clone()).or_default();
        let is_told = models.contains(model) || models.len() + 1 < MODELS;
        let name = if is_told { model } else { OTHERS };
        models.insert(name.to_owned());
        labels(pool, name.to_owned())
    }
}

fn labels(pool: &PoolLabels, model: String) -> ModelLabels {
    ModelLabels { namespace: pool.namespace.clone(), pool: pool.pool.clone(), model }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::core::usage::Consumed;

    fn shown(consumption: &Consumption) -> String {
        let mut registry = Registry::default();
        consumption.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn what_jobs_consume_is_added_by_pool_and_model_and_goes_with_the_pool() {
        let consumption = Consumption::default();
        let pool = PoolLabels { namespace: "team".to_owned(), pool: "fast".to_owned() };
        let consumed = Consumed { input: 3, requests: 1, cost: "0.25".parse().ok(), ..Consumed::default() };
        for _ in 0..2 {
            consumption.add(&pool, &Usage::of("m", consumed));
        }
        let text = shown(&consumption);
        let series = r#"{namespace="team",pool="fast",model="m"}"#;
        for expected in [format!("input_tokens_total{series} 6"), format!("cost_usd_total{series} 0.5")] {
            assert!(text.contains(&expected), "{expected} is not in\n{text}");
        }
        consumption.drop_pool(&pool);
        assert!(!shown(&consumption).contains("team"));
    }

    #[test]
    fn a_pool_has_a_bounded_number_of_models_and_nothing_is_lost() {
        let consumption = Consumption::default();
        let pool = PoolLabels { namespace: "team".to_owned(), pool: "fast".to_owned() };
        for number in 0..100 {
            let one = Consumed { input: 1, ..Consumed::default() };
            consumption.add(&pool, &Usage::of(&format!("model-{number}"), one));
        }
        let text = shown(&consumption);
        let counts = text.lines().filter(|line| line.starts_with("input_tokens_total"));
        let counts: Vec<u64> = counts.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!((counts.len(), counts.iter().sum::<u64>()), (MODELS, 100));
    }
}
