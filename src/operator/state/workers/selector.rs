//! Label selectors as Kubernetes has them, turned into what they require.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::core::index::pods::{Requirement, Selector, Wants};

impl From<&LabelSelector> for Selector {
    /// One with an operator that is not known here matches nothing, as the empty one: which Pods it means cannot be
    /// told, and Pods are deleted by what this says.
    fn from(selector: &LabelSelector) -> Self {
        let labels = selector.match_labels.iter().flatten();
        let equal = |(key, value): (&String, &String)| {
            Some(Requirement { key: key.clone(), wants: Wants::In(vec![value.clone()]) })
        };
        let expressions = selector.match_expressions.iter().flatten();
        let all: Option<Vec<Requirement>> = labels.map(equal).chain(expressions.map(requirement)).collect();
        Self(all.unwrap_or_default())
    }
}

fn requirement(expression: &LabelSelectorRequirement) -> Option<Requirement> {
    let values = || expression.values.clone().unwrap_or_default();
    let wants = match expression.operator.as_str() {
        "In" => Wants::In(values()),
        "NotIn" => Wants::NotIn(values()),
        "Exists" => Wants::Exists,
        "DoesNotExist" => Wants::DoesNotExist,
        _ => return None,
    };
    Some(Requirement { key: expression.key.clone(), wants })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn matches(selector: Value, labels: Value) -> bool {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        Selector::from(&selector).matches(&serde_json::from_value(labels).unwrap())
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
