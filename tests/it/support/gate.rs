//! Stands between a client and a Redis server, and closes at one command: before the server gets it, or before the
//! client gets the answer.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Error, ErrorKind, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// Which side of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server does not get it.
    Before,
    /// The server has done it, and the client does not hear of that.
    After,
}

/// A command, word by word.
pub type Words = Vec<Vec<u8>>;

/// What the gate does with a command.
pub type Judge = Box<dyn FnMut(&Words) -> Option<Side> + Send>;

/// The gate. Once it has closed, nothing passes any more.
pub struct Gate {
    port: u16,
    server: Arc<AtomicU16>,
    closed: mpsc::Receiver<()>,
}

struct Passage {
    judge: Mutex<Judge>,
    closed: Mutex<bool>,
    tell: mpsc::Sender<()>,
}

impl Gate {
    /// A gate before a server, which asks about each command of its clients whether to close at it.
    pub fn before(server: u16, judge: impl FnMut(&Words) -> Option<Side> + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (tell, closed) = mpsc::channel();
        let server = Arc::new(AtomicU16::new(server));
        let leads_to = server.clone();
        let passage = Arc::new(Passage { judge: Mutex::new(Box::new(judge)), closed: Mutex::new(false), tell });
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) =
                    (client, TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::Relaxed))))
                else {
                    break;
                };
                passage.clone().connect(&client, &server);
            }
        });
        Self { port, server, closed }
    }

    /// Leads new connections to another server from now on.
    pub fn lead_to(&self, server: u16) {
        self.server.store(server, Ordering::Relaxed);
    }

    /// The URL of a database for clients.
    pub fn url(&self, database: u8) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// Waits until it has closed.
    pub fn has_closed(&self, within: std::time::Duration) -> bool {
        self.closed.recv_timeout(within).is_ok()
    }
}

impl Passage {
    fn connect(self: Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let both = |stream: &TcpStream| stream.try_clone().expect("a handle");
        // For each command whose answer is to come: whether it is the one to close at.
        let asked: Arc<Mutex<VecDeque<bool>>> = Arc::default();
        let (passage, waiting) = (self.clone(), asked.clone());
        pump(both(client), both(server), move |raw, words, to| passage.command(raw, words, to, &waiting));
        pump(both(server), both(client), move |raw, _, to| self.answer(raw, to, &asked));
    }

    fn command(&self, raw: &[u8], words: &Words, to: &mut TcpStream, asked: &Mutex<VecDeque<bool>>) -> Result<()> {
        let side = (self.judge.lock().expect("no panic"))(words);
        let mut closed = self.closed.lock().expect("no panic");
        if *closed {
            return Ok(());
        }
        if side == Some(Side::Before) {
            self.close(&mut closed);
            return Ok(());
        }
        asked.lock().expect("no panic").push_back(side == Some(Side::After));
        to.write_all(raw)
    }

    fn answer(&self, raw: &[u8], to: &mut TcpStream, asked: &Mutex<VecDeque<bool>>) -> Result<()> {
        // What a server says on its own accord answers nothing.
        let is_last = raw[0] != b'>' && asked.lock().expect("no panic").pop_front() == Some(true);
        let mut closed = self.closed.lock().expect("no panic");
        if is_last {
            self.close(&mut closed);
        }
        if *closed { Ok(()) } else { to.write_all(raw) }
    }

    fn close(&self, closed: &mut bool) {
        *closed = true;
        let _ = self.tell.send(());
    }
}

/// Hands on value by value, until either end is closed.
fn pump(
    from: TcpStream,
    mut to: TcpStream,
    hand_on: impl Fn(&[u8], &Words, &mut TcpStream) -> Result<()> + Send + 'static,
) {
    thread::spawn(move || {
        let mut values = BufReader::new(from);
        while let Ok((raw, words)) = read(&mut values) {
            if hand_on(&raw, &words, &mut to).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Reads one value of the Redis protocol: its bytes, and the strings in it.
fn read(from: &mut impl BufRead) -> Result<(Vec<u8>, Words)> {
    let (mut raw, mut words, mut left) = (Vec::new(), Vec::new(), 1_usize);
    while left > 0 {
        left -= 1;
        let start = raw.len();
        if from.read_until(b'\n', &mut raw)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = std::str::from_utf8(&raw[start..]).map_err(Error::other)?.trim_end();
        let count = |text: &str| text.parse::<usize>().unwrap_or(0);
        match line.as_bytes()[0] {
            // No string at all, and no value after it.
            b'$' | b'*' if line.ends_with("-1") => {}
            b'$' | b'=' | b'!' => {
                let length = count(&line[1..]);
                let mut text = vec![0; length + 2];
                from.read_exact(&mut text)?;
                raw.extend_from_slice(&text);
                text.truncate(length);
                words.push(text);
            }
            b'*' | b'~' | b'>' => left += count(&line[1..]),
            b'%' => left += 2 * count(&line[1..]),
            _ => {}
        }
    }
    Ok((raw, words))
}
