//! Label selectors, as Deployments have them.

use std::collections::BTreeMap;

/// What the labels of a Deployment's Pods fulfil. Without a requirement it matches nothing, and the default has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

/// What one label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Key of the label.
    pub key: String,
    /// What its value must be.
    pub wants: Wants,
}

/// What the value of a label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wants {
    /// One of these.
    In(Vec<String>),
    /// None of these, or absent.
    NotIn(Vec<String>),
    /// Any.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl Selector {
    /// Whether these are the labels of one of its Pods.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.0.is_empty() && self.0.iter().all(|requirement| requirement.is_met_by(labels.get(&requirement.key)))
    }
}

impl Requirement {
    fn is_met_by(&self, value: Option<&String>) -> bool {
        match &self.wants {
            Wants::In(values) => value.is_some_and(|value| values.contains(value)),
            // A label that is absent is none of the values.
            Wants::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Wants::Exists => value.is_some(),
            Wants::DoesNotExist => value.is_none(),
        }
    }
}
