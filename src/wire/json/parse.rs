use super::{Error, Limits, Number, Object, Scanner, Value};

pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    let mut scanner = Scanner::new(bytes, limits)?;
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

impl Scanner<'_> {
    /// Takes one value, and everything in it.
    pub(crate) fn value(&mut self) -> Result<Value, Error> {
        value(self, self.depth())
    }
}

/// Takes one value, nested at most `depth` deep.
fn value(scanner: &mut Scanner<'_>, depth: usize) -> Result<Value, Error> {
    scanner.count()?;
    match scanner.next()? {
        b'{' => {
            let inner = depth.checked_sub(1).ok_or_else(|| scanner.too_deep())?;
            let mut members = Vec::new();
            scanner.object(|scanner, key| {
                members.push((key.into_owned(), value(scanner, inner)?));
                Ok(())
            })?;
            Ok(Value::Object(Object::from_iter(members)))
        }
        b'[' => {
            let inner = depth.checked_sub(1).ok_or_else(|| scanner.too_deep())?;
            let mut elements = Vec::new();
            scanner.array(|scanner, _| {
                elements.push(value(scanner, inner)?);
                Ok(())
            })?;
            Ok(Value::Array(elements))
        }
        b'"' => Ok(Value::String(scanner.string()?.into_owned())),
        b't' => scanner.literal("true").map(|()| Value::Bool(true)),
        b'f' => scanner.literal("false").map(|()| Value::Bool(false)),
        b'n' => scanner.literal("null").map(|()| Value::Null),
        _ => Ok(Value::Number(Number::from_token(scanner.number()?))),
    }
}
