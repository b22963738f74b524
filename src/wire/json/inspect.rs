//! Questions about whole values.

use super::Value;

impl Value {
    /// How deep arrays and objects are nested: 0 for a scalar, 1 for `[]`, 2 for `[{}]`. One that is carried as
    /// its text counts as deeper than any limit.
    pub fn depth(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => 0,
            Self::Array(elements) => 1 + elements.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            Self::Verbatim(_) => usize::MAX / 2,
        }
    }

    /// Whether every number can be held exactly by Kubernetes' JSON, which knows `int64` and finite `float64`.
    ///
    /// False means, or may mean where it is carried as its text, that a strict reader would refuse the value or an API server would change it.
    pub fn has_exact_json_numbers(&self) -> bool {
        match self {
            Self::Null | Self::Bool(_) | Self::String(_) => true,
            Self::Number(number) => number.is_exact(),
            Self::Array(elements) => elements.iter().all(Self::has_exact_json_numbers),
            Self::Object(members) => members.iter().all(|(_, value)| value.has_exact_json_numbers()),
            Self::Verbatim(_) => false,
        }
    }
}
