//! Taking known fields out of an object. A field of an unexpected type stays where it is, and so survives a round trip.

use super::DecodeError;
use super::json::{Number, Object, Value};

pub(super) trait Field: Sized {
    /// Takes the value, or leaves it untouched.
    fn take_from(value: &mut Value) -> Option<Self>;
}

impl Field for String {
    fn take_from(value: &mut Value) -> Option<Self> {
        if let Value::String(text) = value { Some(std::mem::take(text)) } else { None }
    }
}

impl Field for bool {
    fn take_from(value: &mut Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for i64 {
    fn take_from(value: &mut Value) -> Option<Self> {
        value.as_i64()
    }
}

impl Field for u32 {
    fn take_from(value: &mut Value) -> Option<Self> {
        value.as_i64()?.try_into().ok()
    }
}

impl Field for Number {
    fn take_from(value: &mut Value) -> Option<Self> {
        value.as_number().cloned()
    }
}

impl Field for Vec<Value> {
    fn take_from(value: &mut Value) -> Option<Self> {
        if let Value::Array(elements) = value { Some(std::mem::take(elements)) } else { None }
    }
}

impl Field for Object {
    fn take_from(value: &mut Value) -> Option<Self> {
        if let Value::Object(members) = value { Some(std::mem::take(members)) } else { None }
    }
}

impl Object {
    /// Takes `key` out if it has the type asked for.
    pub(super) fn take<T: Field>(&mut self, key: &str) -> Option<T> {
        let taken = T::take_from(self.get_mut(key)?)?;
        self.remove(key);
        Some(taken)
    }

    /// The same where `null` means absent.
    pub(super) fn take_nullable<T: Field>(&mut self, key: &str) -> Option<T> {
        if self.get(key)?.is_null() {
            self.remove(key);
            return None;
        }
        self.take(key)
    }

    /// Takes a field that must be there; `field` is its path in messages and ends in `key`.
    pub(super) fn require<T: Field>(
        &mut self,
        key: &str,
        field: &'static str,
        expected: &'static str,
    ) -> Result<T, DecodeError> {
        match self.get(key) {
            None => Err(DecodeError::Missing { field }),
            Some(_) => self.take(key).ok_or(DecodeError::Type { field, expected }),
        }
    }
}

impl Value {
    pub(super) fn into_object(self, field: &'static str) -> Result<Object, DecodeError> {
        if let Self::Object(members) = self {
            Ok(members)
        } else {
            Err(DecodeError::Type { field, expected: "an object" })
        }
    }
}
