//! Label selectors, as Deployments have them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// What the labels of a Deployment's Pods fulfil.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// What one label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    wants: Wants,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wants {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Reads a selector. One with an operator that is not known here matches nothing, as the empty one: which Pods it
    /// means cannot be told, and Pods are deleted by what this says.
    pub fn of(selector: &LabelSelector) -> Self {
        let labels = selector.match_labels.iter().flatten();
        let equal = |(key, value): (&String, &String)| {
            Some(Requirement { key: key.clone(), wants: Wants::In(vec![value.clone()]) })
        };
        let expressions = selector.match_expressions.iter().flatten();
        let all: Option<Vec<Requirement>> = labels.map(equal).chain(expressions.map(Requirement::of)).collect();
        Self(all.unwrap_or_default())
    }

    /// Whether these are the labels of one of its Pods.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.0.is_empty() && self.0.iter().all(|requirement| requirement.is_met_by(labels.get(&requirement.key)))
    }
}

impl Requirement {
    fn of(expression: &LabelSelectorRequirement) -> Option<Self> {
        let values = || expression.values.clone().unwrap_or_default();
        let wants = match expression.operator.as_str() {
            "In" => Wants::In(values()),
            "NotIn" => Wants::NotIn(values()),
            "Exists" => Wants::Exists,
            "DoesNotExist" => Wants::DoesNotExist,
            _ => return None,
        };
        Some(Self { key: expression.key.clone(), wants })
    }

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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn matches(selector: Value, labels: Value) -> bool {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        Selector::of(&selector).matches(&serde_json::from_value(labels).unwrap())
    }

    #[test]
    fn labels_and_expressions_of_a_selector_all_have_to_match() {
        let expression = |operator: &str, values: &[&str]| json!({ "matchLabels": { "app": "crew" }, "matchExpressions": [{ "key": "tier", "operator": operator, "values": values }] });
        let labels = |tier: &str| json!({ "app": "crew", "tier": tier });
        let none = json!({ "app": "crew" });
        assert!(matches(expression("In", &["a", "b"]), labels("b")));
        assert!(!matches(expression("In", &["a", "b"]), labels("c")));
        assert!(!matches(expression("In", &["a"]), none.clone()));
        assert!(matches(expression("NotIn", &["a"]), labels("b")));
        assert!(!matches(expression("NotIn", &["a"]), labels("a")));
        assert!(matches(expression("NotIn", &["a"]), none.clone()));
        assert!(matches(expression("Exists", &[]), labels("a")));
        assert!(!matches(expression("Exists", &[]), none.clone()));
        assert!(matches(expression("DoesNotExist", &[]), none));
        assert!(!matches(expression("DoesNotExist", &[]), labels("a")));
        assert!(!matches(expression("In", &["a"]), json!({ "app": "other", "tier": "a" })));
    }

    #[test]
    fn a_selector_that_is_empty_or_cannot_be_read_matches_no_pod() {
        assert!(!matches(json!({}), json!({ "app": "redis" })));
        assert!(!matches(json!({ "matchLabels": {} }), json!({})));
        let unknown = json!({ "matchLabels": { "app": "crew" }, "matchExpressions": [{ "key": "n", "operator": "Gt", "values": ["1"] }] });
        assert!(!matches(unknown, json!({ "app": "crew", "n": "2" })));
    }
}
