//! How to get in, asked anew for each connection: passwords are rotated, certificates renewed, and tokens expire.

use parking_lot::Mutex;

use super::address::Address;
use super::settings::{Access, Renewal};

/// An address that is renewed before each connection.
pub(super) struct Renewed {
    renewal: Option<Renewal>,
    last: Mutex<(Option<Access>, Address)>,
}

impl Renewed {
    pub fn new(address: &Address, access: &Access) -> Self {
        Self { renewal: access.renewal.clone(), last: Mutex::new((None, address.clone())) }
    }

    /// The address, as it is now. What cannot be renewed stays as it was: a file may be missing for a moment.
    pub async fn now(&self) -> Address {
        if let Some(renewal) = &self.renewal {
            match renewal.ask().await {
                Ok(access) if self.last.lock().0.as_ref() != Some(&access) => {
                    let current = self.last.lock().1.clone();
                    match current.again(&access) {
                        Ok(address) => *self.last.lock() = (Some(access), address),
                        Err(error) => say(&error),
                    }
                }
                Ok(_) => {}
                Err(error) => say(&error),
            }
        }
        self.last.lock().1.clone()
    }
}

fn say(error: &str) {
    tracing::warn!(error, "reading again how to connect to Redis failed; connecting as before");
}
