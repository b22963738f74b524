//! What every call of the page has at hand.

use std::sync::Arc;

use kube::Client;

use super::access::Access;
use super::board::Board;

/// What the page needs beside the gateway.
pub struct Desk {
    /// The jobs.
    pub board: Arc<Board>,
    /// What callers may do.
    pub access: Access,
}

impl Desk {
    /// Begins to follow the jobs of these namespaces, or of all, with the gateway's own rights. At most so many are held.
    pub fn open(client: &Client, namespaces: &[String], most: usize) -> Self {
        let board = Arc::new(Board::new(most, namespaces.len().max(1)));
        let follow = |namespace: Option<String>| {
            let (board, client) = (board.clone(), client.clone());
            tokio::spawn(async move { board.follow(client, namespace.as_deref()).await });
        };
        if namespaces.is_empty() {
            follow(None);
        }
        namespaces.iter().cloned().map(Some).for_each(follow);
        Self { board, access: Access::default() }
    }
}
