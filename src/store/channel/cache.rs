//! What crews put out for the same inputs before. The keys are those of the Python example's workers.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Channel, Error};

impl Channel {
    /// The output of this crew for inputs with this canonical text, if it is known.
    pub async fn cached(&self, crew: &str, inputs: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut read = redis::cmd("GET");
        read.arg(key(crew, inputs));
        self.0.results.query("reading the result cache", &read).await
    }

    /// Remembers an output for so long.
    pub async fn cache(&self, crew: &str, inputs: &str, output: &[u8], ttl: Duration) -> Result<(), Error> {
        let mut write = redis::cmd("SET");
        write.arg(key(crew, inputs)).arg(output).arg("EX").arg(ttl.as_secs().max(1));
        self.0.results.query("writing the result cache", &write).await
    }
}

fn key(crew: &str, inputs: &str) -> String {
    use std::fmt::Write as _;
    let mut key = format!("crew-cache:{crew}:");
    for byte in Sha256::digest(inputs) {
        let _ = write!(key, "{byte:02x}");
    }
    key
}
