//! The lines of a watch, of which each is an event.

use axum::body::{Body, BodyDataStream};
use futures::StreamExt as _;

/// Bytes of one line: an object, and the JSON around it.
const LINE: usize = 4 << 20;

/// The lines of a watch.
pub struct Lines {
    chunks: BodyDataStream,
    begun: Vec<u8>,
}

impl Lines {
    /// Those of the body of its answer.
    pub fn new(body: Body) -> Self {
        Self { chunks: body.into_data_stream(), begun: Vec::new() }
    }

    /// The next line; `None` at the end, when the connection broke, or when a line is too long.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.begun[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.begun.split_off(searched + at + 1);
                return Some(std::mem::replace(&mut self.begun, rest));
            }
            searched = self.begun.len();
            let chunk = self.chunks.next().await?.ok()?;
            if searched + chunk.len() > LINE {
                return None;
            }
            self.begun.extend_from_slice(&chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn lines_are_whole_however_they_arrive_and_one_without_an_end_is_given_up() {
        let pieces = ["{\"a\":", "1}\n{\"b\":2}\n{", "\"c\":3}\n", "{\"d\""];
        let body = Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)));
        let (mut lines, mut read) = (Lines::new(body), Vec::new());
        while let Some(line) = lines.next().await {
            read.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(read, ["{\"a\":1}\n", "{\"b\":2}\n", "{\"c\":3}\n"]);
        let endless = stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 1 << 20]));
        assert_eq!(Lines::new(Body::from_stream(endless)).next().await, None);
    }
}
