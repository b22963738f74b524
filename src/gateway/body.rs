//! Bodies of requests: so many bytes each, so many in all, and in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::core::gateway::problem::{Kind, Problem};

/// Bytes of one body. The API server takes some more of one object.
pub const LIMIT: usize = 1 << 20;
/// Bytes of all bodies that are held at once.
const IN_ALL: usize = 64 << 20;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that one permit is for.
const UNIT: usize = 1024;

/// The room for bodies.
#[derive(Debug, Clone)]
pub struct Room {
    units: Arc<Semaphore>,
    patience: Duration,
}

/// A body, and the room that it takes.
#[derive(Debug)]
pub struct Held {
    /// What was sent.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self { units: Arc::new(Semaphore::new(IN_ALL / UNIT)), patience: PATIENCE }
    }
}

impl Room {
    /// Reads a body. One whose length is said to be too large is not read at all.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Held, Problem> {
        let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if said.is_some_and(|length| length > LIMIT) {
            return Err(too_large());
        }
        let slow = |_| Problem::new(Kind::TooSlow, format!("it must arrive within {} s", self.patience.as_secs()));
        timeout(self.patience, self.collect(body)).await.map_err(slow)?
    }

    /// Takes room as the bytes arrive: a length that is only announced takes none.
    async fn collect(&self, body: Body) -> Result<Held, Problem> {
        let (mut bytes, mut room) = (Vec::new(), None::<OwnedSemaphorePermit>);
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::new(Kind::InvalidBody, "the body broke off"))?;
            if bytes.len() + chunk.len() > LIMIT {
                return Err(too_large());
            }
            let units = u32::try_from(chunk.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
            let taken = self.units.clone().try_acquire_many_owned(units).map_err(|_| {
                Problem::new(
                    Kind::Overloaded,
                    "the bodies of other requests take all the memory that there is for them",
                )
                .again_after(Duration::from_secs(1))
            })?;
            match &mut room {
                None => room = Some(taken),
                Some(room) => room.merge(taken),
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Held { bytes: bytes.into(), _room: room })
    }
}

fn too_large() -> Problem {
    Problem::new(Kind::TooLarge, format!("it may have at most {LIMIT} bytes"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http::HeaderValue;

    use super::*;

    fn pieces(count: usize, bytes: usize) -> Body {
        Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, Infallible>(vec![b'x'; bytes]))))
    }

    async fn kind(room: &Room, headers: &HeaderMap, body: Body) -> Result<usize, Kind> {
        room.read(headers, body).await.map(|held| held.bytes.len()).map_err(|problem| problem.kind)
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_by_its_length_and_by_counting() {
        let (room, none) = (Room::default(), HeaderMap::new());
        let said = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(100u64 << 20))]);
        let unread =
            Body::from_stream(stream::once(async { panic!("it is not read") }).map(|()| Ok::<_, Infallible>("")));
        assert_eq!(kind(&room, &said, unread).await, Err(Kind::TooLarge));
        assert_eq!(kind(&room, &none, pieces(100, 64 << 10)).await, Err(Kind::TooLarge));
        assert_eq!(kind(&room, &none, pieces(16, 64 << 10)).await, Ok(LIMIT));
    }

    #[tokio::test]
    async fn all_bodies_together_take_bounded_memory_and_give_it_back() {
        let (room, none) = (Room::default(), HeaderMap::new());
        let mut held = Vec::new();
        for _ in 0..IN_ALL / LIMIT {
            held.push(room.read(&none, pieces(1, LIMIT)).await.unwrap());
        }
        assert_eq!(kind(&room, &none, pieces(1, 1)).await, Err(Kind::Overloaded));
        held.pop();
        assert_eq!(kind(&room, &none, pieces(1, 1)).await, Ok(1));
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let endless = Body::from_stream(stream::pending::<Result<Vec<u8>, Infallible>>());
        let room = Room { patience: Duration::from_millis(10), ..Room::default() };
        assert_eq!(kind(&room, &HeaderMap::new(), endless).await, Err(Kind::TooSlow));
    }
}
