//! Which jobs are meant.

use super::Row;

/// Values of one kind that a filter may have, and characters of each.
const VALUES: usize = 32;
const CHARACTERS: usize = 512;

/// Which jobs are meant: of each kind that is given any of the values fits, and all kinds have to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Pools.
    pub pools: Vec<String>,
    /// Phases.
    pub phases: Vec<String>,
    /// Reasons.
    pub reasons: Vec<String>,
    /// Labels, `name=value`, or `name` for any value. All of them have to fit.
    pub labels: Vec<String>,
    /// Names of jobs.
    pub names: Vec<String>,
    /// Text within the name, the topic, the error or the worker, whatever the case; in lower case.
    pub text: Option<String>,
}

/// A kind of filter for which a list offers values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facet {
    /// `namespace`
    Namespace,
    /// `pool`
    Pool,
    /// `phase`
    Phase,
    /// `reason`
    Reason,
}

/// Facets, in the order in which they are offered.
pub const FACETS: [Facet; 4] = [Facet::Namespace, Facet::Pool, Facet::Phase, Facet::Reason];

/// How a job fits a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It is meant.
    Whole,
    /// Without the values of this facet it would be meant.
    But(Facet),
    /// It is not meant.
    Not,
}

impl Filter {
    /// Adds what was asked for; `Ok(false)` for a word that is none of a filter. The error says what is wrong with the value.
    pub fn add(&mut self, word: &str, value: &str) -> Result<bool, String> {
        if value.chars().count() > CHARACTERS {
            return Err(format!("{word} has more than {CHARACTERS} characters"));
        }
        let values = match word {
            "namespace" => &mut self.namespaces,
            "pool" => &mut self.pools,
            "phase" => &mut self.phases,
            "reason" => &mut self.reasons,
            "label" => &mut self.labels,
            "name" => &mut self.names,
            "text" => {
                self.text = Some(value.trim().to_lowercase()).filter(|text| !text.is_empty());
                return Ok(true);
            }
            _ => return Ok(false),
        };
        if value.is_empty() || values.iter().any(|known| known == value) {
            return Ok(true);
        }
        if values.len() >= VALUES {
            return Err(format!("{word} is given more than {VALUES} times"));
        }
        values.push(value.to_owned());
        Ok(true)
    }

    /// Whether it means the job.
    pub fn means(&self, row: &Row) -> bool {
        self.fit(row) == Fit::Whole
    }

    /// How the job fits.
    pub fn fit(&self, row: &Row) -> Fit {
        let is_any = |values: &[String], value: &str| values.is_empty() || values.iter().any(|it| it == value);
        if !is_any(&self.names, &row.name) || !self.labels.iter().all(|label| has_label(row, label)) {
            return Fit::Not;
        }
        let facets = [
            (Facet::Namespace, is_any(&self.namespaces, &row.namespace)),
            (Facet::Pool, is_any(&self.pools, &row.pool)),
            (Facet::Phase, is_any(&self.phases, &row.phase)),
            (Facet::Reason, is_any(&self.reasons, &row.reason)),
        ];
        let mut unfit = facets.iter().filter(|(_, fits)| !fits).map(|(facet, _)| *facet);
        let (first, second) = (unfit.next(), unfit.next());
        // The text costs the most, and comes last.
        if second.is_some() || !self.text.as_ref().is_none_or(|text| has_text(row, text)) {
            return Fit::Not;
        }
        first.map_or(Fit::Whole, Fit::But)
    }
}

fn has_label(row: &Row, label: &str) -> bool {
    match label.split_once('=') {
        Some((name, value)) => row.labels.iter().any(|(known, is)| &**known == name && &**is == value),
        None => row.labels.iter().any(|(known, _)| &**known == label),
    }
}

fn has_text(row: &Row, text: &str) -> bool {
    let optional = [row.error.as_deref(), row.error_message.as_deref(), row.worker.as_deref()];
    [&*row.name, &*row.topic].into_iter().chain(optional.into_iter().flatten()).any(|it| contains(it, text))
}

/// Whether a text contains another one in lower case, whatever its own case.
fn contains(text: &str, lower: &str) -> bool {
    if !text.is_ascii() {
        return text.to_lowercase().contains(lower);
    }
    let (text, lower) = (text.as_bytes(), lower.as_bytes());
    text.windows(lower.len().max(1)).any(|window| window.eq_ignore_ascii_case(lower))
}
