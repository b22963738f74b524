use std::fmt;

/// A JSON number that keeps the text it was written with.
#[derive(Clone, PartialEq, Eq)]
pub struct Number(Repr);

/// INVARIANT: an integer whose canonical text fits `i64` is always `Int`, so equal text means equal `Repr`.
#[derive(Clone, PartialEq, Eq)]
enum Repr {
    Int(i64),
    Text(Box<str>),
}

impl Number {
    /// Reads a number as JSON or Python's `json` writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut scanner = super::Scanner::over(text);
        let number = scanner.number().ok()?;
        (number.len() == text.len()).then(|| Self::from_token(text))
    }

    /// Takes a token that the scanner has accepted as a number.
    pub(super) fn from_token(text: &str) -> Self {
        match text.parse::<i64>() {
            Ok(value) if text != "-0" => Self(Repr::Int(value)),
            _ => Self(Repr::Text(text.into())),
        }
    }

    /// Whether it is written without fraction and exponent, which is what makes Python read an `int`.
    pub fn is_integer(&self) -> bool {
        match &self.0 {
            Repr::Int(_) => true,
            Repr::Text(text) => text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()),
        }
    }

    /// The value, if it is an integer in range.
    pub fn as_i64(&self) -> Option<i64> {
        match &self.0 {
            Repr::Int(value) => Some(*value),
            Repr::Text(text) => text.parse().ok(),
        }
    }

    /// The nearest `f64`; infinite when it is beyond that.
    pub fn as_f64(&self) -> f64 {
        match &self.0 {
            #[expect(clippy::cast_precision_loss, reason = "the nearest one is what is promised")]
            Repr::Int(value) => *value as f64,
            Repr::Text(text) => match &**text {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                text => text.parse().unwrap_or(f64::NAN),
            },
        }
    }

    /// Python's `int()` of it: the fraction is cut off, anything too large is the largest `i64`.
    pub fn truncated(&self) -> Option<i64> {
        let value = self.as_f64();
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
        self.as_i64().or_else(|| value.is_finite().then_some(value as i64))
    }

    /// Whether Kubernetes' JSON, which knows `int64` and `float64` only, can hold exactly this number.
    pub fn is_exact(&self) -> bool {
        match &self.0 {
            Repr::Int(_) => true,
            Repr::Text(text) if self.is_integer() => &**text == "-0",
            Repr::Text(text) => {
                let value = self.as_f64();
                value.is_finite() && decimal(text).is_some() && decimal(text) == decimal(&format!("{value:e}"))
            }
        }
    }

    /// How Python's `repr` shows it: `1e+22`, `nan`, `inf`.
    pub fn to_python(&self) -> String {
        if self.is_integer() {
            return self.to_string();
        }
        let value = self.as_f64();
        if value.is_nan() {
            "nan".to_owned()
        } else if value.is_infinite() {
            if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() }
        } else {
            python_float(value)
        }
    }
}

/// Sign, significant digits without zeros around them, and the exponent of the last digit.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some((false, String::new(), 0));
    }
    let exponent = exponent.parse::<i64>().ok()?;
    let shift = i64::try_from(digits.len() - trimmed.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    Some((negative, trimmed.trim_start_matches('0').to_owned(), exponent.checked_add(shift)?))
}

/// Rust and Python agree on the digits and on when to use an exponent, not on how to write it.
fn python_float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Int(value) => write!(f, "{value}"),
            Repr::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({self})")
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self(Repr::Int(value))
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        let text = if value.is_nan() {
            "NaN".to_owned()
        } else if value.is_infinite() {
            if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
        } else {
            python_float(value)
        };
        Self(Repr::Text(text.into()))
    }
}
