//! The Celery wire: task protocol v2, kombu's Redis envelope, results, events and remote control.
//!
//! Bytes to values and back; no sockets, no clock, no randomness. Decoding is tolerant and bounded: hostile bytes give
//! an error, never a panic. Encoding is strict. Fields this crate does not know survive a round trip.
//!
//! | module | bytes |
//! |---|---|
//! | [`envelope`] | an element of a queue list, a value of the `unacked` hash |
//! | [`message`] | the task inside an envelope; [`call`] builds one |
//! | [`result`] | a value of a `celery-task-meta-…` key |
//! | [`event`] | what workers publish on `celeryev` |
//! | [`pidbox`] | remote control requests and replies |
//! | [`keys`], [`priority`] | the names of all of these in Redis |
//! | [`compression`] | bodies and results that were compressed |
//! | [`binding`], [`pattern`] | which queues a message goes to; what Python's patterns match |
//! | [`trace`] | the headers by which traces go on |
//! | [`json`], [`time`], [`python`] | the JSON, the times and the `repr` that Python speaks |

pub mod binding;
pub mod call;
pub mod compression;
pub mod envelope;
pub mod error;
pub mod event;
pub mod json;
pub mod keys;
pub mod message;
pub mod pattern;
pub mod pidbox;
pub mod priority;
pub mod python;
pub mod result;
pub mod time;
pub mod trace;

mod fields;

pub use binding::Destination;
pub use call::Call;
pub use envelope::{DeliveryInfo, Envelope, Peek, Properties, Unacked};
pub use error::DecodeError;
pub use event::Event;
pub use json::{Limits, Number, Object, RawJson, Value};
pub use keys::{BrokerKeys, ResultKeys};
pub use message::{Embed, Headers, Message, Signature, TimeLimit};
pub use pattern::Pattern;
pub use priority::{Bands, InvalidBands};
pub use result::{Exception, ResultDocument, State};
pub use trace::TraceParent;
