//! What runs have consumed, by model, and what that cost.
//!
//! All sums saturate: a program may report anything, and a wrong number must neither end a run nor become a small one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Models that are told apart. What is reported of more is counted under [`OTHERS`].
pub const MODELS: usize = 8;
/// Longest name of a model, in bytes.
pub const MODEL: usize = 64;
/// The name under which the consumption of further models is counted.
pub const OTHERS: &str = "(others)";

/// An amount of US dollars, in billionths.
///
/// Prices per token are fractions of a cent: 0.15 dollars for a million tokens are 150 billionths each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Usd(u64);

/// What was consumed of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consumed {
    /// Tokens that were sent, those from a cache included.
    pub input: u64,
    /// Of these, tokens that the provider had cached.
    pub cached: u64,
    /// Tokens that came back.
    pub output: u64,
    /// Requests.
    pub requests: u64,
    /// What it cost, as far as the program knows.
    pub cost: Option<Usd>,
}

/// What a model costs, for a million tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// The name of the model.
    pub model: Box<str>,
    /// For tokens that are sent.
    pub input: Usd,
    /// For those of them that the provider had cached.
    pub cached: Usd,
    /// For tokens that come back.
    pub output: Usd,
}

/// What runs have consumed, by the name of the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    models: BTreeMap<Box<str>, Consumed>,
}

impl Usd {
    /// Billionths of a dollar.
    const UNIT: u64 = 1_000_000_000;

    /// So many billionths of a dollar.
    pub const fn billionths(number: u64) -> Self {
        Self(number)
    }

    /// How many billionths of a dollar it is.
    pub const fn as_billionths(self) -> u64 {
        self.0
    }

    /// In dollars, as exactly as a number of floating point can be.
    #[expect(clippy::cast_precision_loss, reason = "a figure to be shown")]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / Self::UNIT as f64
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; nothing where the other amount is larger.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// What so many tokens cost at this price for a million; rounded up.
    #[must_use]
    pub fn per_million(self, tokens: u64) -> Self {
        let product = u128::from(self.0) * u128::from(tokens);
        Self(u64::try_from(product.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

/// A decimal number of dollars, such as `0.0123`: at most nine digits after the point are written, and none that are
/// zeros at the end.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::UNIT, self.0 % Self::UNIT);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{rest:09}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a decimal number of US dollars, such as 0.0123, of at most 9 digits before the point")]
pub struct NotUsd;

/// Reads a decimal number. Digits behind the ninth after the point are rounded up, so that no cost is read as none.
impl FromStr for Usd {
    type Err = NotUsd;

    fn from_str(text: &str) -> Result<Self, NotUsd> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 9 || text.ends_with('.') || !is_number(whole) || !is_number(rest) {
            return Err(NotUsd);
        }
        let (kept, dropped) = rest.split_at(rest.len().min(9));
        let billionths = format!("{kept:0<9}").parse::<u64>().map_err(|_| NotUsd)?;
        let round_up = u64::from(dropped.bytes().any(|digit| digit != b'0'));
        let whole = whole.parse::<u64>().map_err(|_| NotUsd)?;
        Ok(Self(whole * Self::UNIT + billionths + round_up))
    }
}

impl Consumed {
    /// Adds what else was consumed. A cost that is known of one part only is the cost of that part.
    pub fn add(&mut self, other: &Self) {
        self.input = self.input.saturating_add(other.input);
        self.cached = self.cached.saturating_add(other.cached);
        self.output = self.output.saturating_add(other.output);
        self.requests = self.requests.saturating_add(other.requests);
        self.cost = match (self.cost, other.cost) {
            (Some(one), Some(another)) => Some(one.plus(another)),
            (one, another) => one.or(another),
        };
    }

    /// All tokens, in both directions.
    pub fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl Usage {
    /// What was consumed of one model.
    pub fn of(model: &str, consumed: Consumed) -> Self {
        let mut usage = Self::default();
        usage.count(model, &consumed);
        usage
    }

    /// Adds what was consumed of a model.
    pub fn count(&mut self, model: &str, consumed: &Consumed) {
        let model = &model[..model.floor_char_boundary(MODEL)];
        let is_known = self.models.contains_key(model);
        // One place is kept for the others.
        let name = if is_known || self.models.len() + 1 < MODELS { model } else { OTHERS };
        self.models.entry(name.into()).or_default().add(consumed);
    }

    /// The same with costs by these prices, where a program has reported none.
    #[must_use]
    pub fn priced(mut self, prices: &[Price]) -> Self {
        for price in prices {
            if let Some(consumed) = self.models.get_mut(&price.model).filter(|consumed| consumed.cost.is_none()) {
                let cached = consumed.cached.min(consumed.input);
                let sent = price.input.per_million(consumed.input - cached).plus(price.cached.per_million(cached));
                consumed.cost = Some(sent.plus(price.output.per_million(consumed.output)));
            }
        }
        self
    }

    /// Adds what other runs consumed.
    pub fn add(&mut self, other: &Self) {
        for (model, consumed) in &other.models {
            self.count(model, consumed);
        }
    }

    /// What is left without a part of it.
    #[must_use]
    pub fn without(mut self, part: &Self) -> Self {
        for (model, consumed) in part.models() {
            if let Some(left) = self.models.get_mut(model) {
                left.input = left.input.saturating_sub(consumed.input);
                left.cached = left.cached.saturating_sub(consumed.cached);
                left.output = left.output.saturating_sub(consumed.output);
                left.requests = left.requests.saturating_sub(consumed.requests);
                let cost = left.cost.map(|cost| cost.minus(consumed.cost.unwrap_or_default()));
                left.cost = cost.filter(|cost| *cost != Usd(0));
            }
        }
        self.models.retain(|_, left| *left != Consumed::default());
        self
    }

    /// Whether nothing was reported.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// What was consumed of each model, sorted by name.
    pub fn models(&self) -> impl Iterator<Item = (&str, &Consumed)> {
        self.models.iter().map(|(name, consumed)| (&**name, consumed))
    }

    /// What was consumed of all models together.
    pub fn total(&self) -> Consumed {
        let mut total = Consumed::default();
        for consumed in self.models.values() {
            total.add(consumed);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    #[test]
    fn an_amount_is_read_and_written_as_a_decimal_number_of_dollars() {
        for text in ["0", "1", "0.5", "12.000000001", "999999999.999999999"] {
            assert_eq!(usd(text).to_string(), text);
        }
        assert_eq!(usd("0.1500").to_string(), "0.15");
        assert_eq!(usd("0.00000000010").to_string(), "0.000000001", "no cost is read as none");
        for text in ["", ".5", "1.", "-1", "+1", "1e3", "1,5", "NaN", "1000000000", " 1", "0x1", "1.2.3", "٣"] {
            assert_eq!(text.parse::<Usd>(), Err(NotUsd), "{text:?}");
        }
    }

    #[test]
    fn a_price_for_a_million_tokens_is_rounded_up() {
        assert_eq!(usd("0.15").per_million(1), Usd::billionths(150));
        assert_eq!(usd("0.15").per_million(1_000_000), usd("0.15"));
        assert_eq!(usd("0.0001").per_million(1), Usd::billionths(1));
        assert_eq!(usd("0").per_million(u64::MAX), usd("0"));
        assert_eq!(usd("999999999").per_million(u64::MAX), Usd::billionths(u64::MAX), "too much is not little");
    }

    #[test]
    fn reports_are_added_by_model_and_a_cost_that_is_known_of_some_is_kept() {
        let with =
            |input, cost: Option<&str>| Consumed { input, requests: 1, cost: cost.map(usd), ..Consumed::default() };
        let mut usage = Usage::of("a", with(1, Some("0.1")));
        usage.add(&Usage::of("a", with(2, None)));
        usage.add(&Usage::of("b", with(4, Some("0.2"))));
        let total = usage.total();
        assert_eq!((total.input, total.requests, total.cost), (7, 3, Some(usd("0.3"))));
        assert_eq!(usage.models().map(|(name, it)| (name, it.input)).collect::<Vec<_>>(), [("a", 3), ("b", 4)]);
    }

    #[test]
    fn a_price_gives_a_cost_where_a_program_has_reported_none() {
        let price = Price { model: "m".into(), input: usd("2"), cached: usd("0.5"), output: usd("8") };
        let consumed = Consumed { input: 1_000_000, cached: 400_000, output: 250_000, requests: 3, cost: None };
        let cost = |usage: Usage| usage.priced(std::slice::from_ref(&price)).total().cost;
        assert_eq!(
            cost(Usage::of("m", consumed)),
            Some(usd("3.4")),
            "1.2 for what was sent, 0.2 cached, 2 for what came"
        );
        assert_eq!(cost(Usage::of("m", Consumed { cost: Some(usd("0.1")), ..consumed })), Some(usd("0.1")));
        assert_eq!(cost(Usage::of("another", consumed)), None);
        let odd = Consumed { cached: u64::MAX, ..consumed };
        assert_eq!(cost(Usage::of("m", odd)), Some(usd("2.5")), "no more was cached than sent");
    }

    proptest! {
        #[test]
        fn whatever_is_reported_is_bounded_and_nothing_is_lost(reports in prop::collection::vec((".{0,80}", any::<u64>()), 0..60)) {
            let mut usage = Usage::default();
            let mut sum = 0_u64;
            for (model, input) in &reports {
                usage.add(&Usage::of(model, Consumed { input: *input, ..Consumed::default() }));
                sum = sum.saturating_add(*input);
            }
            prop_assert_eq!(usage.total().input, sum);
            prop_assert!(usage.models().count() <= MODELS);
            prop_assert!(usage.models().all(|(name, _)| name.len() <= MODEL));
        }
    }
}
