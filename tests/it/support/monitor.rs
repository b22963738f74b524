//! What scripts do on a server, as `MONITOR` tells.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;

use super::redis::RedisServer;

/// A connection to which the server tells every command.
pub struct Monitor(BufReader<TcpStream>);

impl Monitor {
    /// Hears all that is done from now on.
    pub fn of(server: &RedisServer) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
        stream.write_all(b"MONITOR\r\n").expect("it is sent");
        let mut lines = BufReader::new(stream);
        let mut answer = String::new();
        lines.read_line(&mut answer).expect("an answer");
        assert_eq!(answer, "+OK\r\n");
        Self(lines)
    }

    /// The keys that scripts have touched without declaring them, as `script: key`, with the scripts that ran. What they are called, and
    /// what differs from run to run, is up to `called`.
    pub fn undeclared(
        mut self,
        server: &RedisServer,
        called: impl Fn(&str) -> String,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        server.run::<String>(&["ECHO", "the end of the monitor"]);
        let digests = scripts();
        let (mut found, mut ran) = (BTreeSet::new(), BTreeSet::new());
        let mut current: (String, HashSet<Vec<u8>>) = Default::default();
        let mut keys_of: HashMap<Vec<Vec<u8>>, Vec<Vec<u8>>> = HashMap::new();
        loop {
            let mut line = Vec::new();
            self.0.read_until(b'\n', &mut line).expect("a line");
            let text = String::from_utf8_lossy(&line).into_owned();
            let words = words(&text);
            let Some(first) = words.first().map(|word| String::from_utf8_lossy(word).to_uppercase()) else { continue };
            if first == "ECHO" {
                return (found, ran);
            }
            if text.contains(" lua] ") {
                let touched = keys_of.entry(words.clone()).or_insert_with(|| keys(server, &words));
                for key in touched.iter().filter(|key| !current.1.contains(*key)) {
                    found.insert(format!("{}: {}", current.0, called(&String::from_utf8_lossy(key))));
                }
            } else if first == "EVALSHA" {
                let number = |word: &Vec<u8>| String::from_utf8_lossy(word).parse::<usize>().unwrap_or_default();
                let count = words.get(2).map_or(0, number);
                let sha = String::from_utf8_lossy(&words[1]).into_owned();
                let name = digests.get(&sha).cloned().unwrap_or(sha);
                ran.insert(name.clone());
                current = (name, words.iter().skip(3).take(count).cloned().collect());
            }
        }
    }
}

/// Which keys a command has, as the server itself says.
fn keys(server: &RedisServer, words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut ask = redis::cmd("COMMAND");
    ask.arg("GETKEYS");
    for word in words {
        ask.arg(word);
    }
    ask.query(&mut server.connection()).unwrap_or_default()
}

/// The words of a line of `MONITOR`, which are in quotes.
fn words(line: &str) -> Vec<Vec<u8>> {
    let Some((_, rest)) = line.split_once("] ") else { return Vec::new() };
    let (mut words, mut word, mut inside) = (Vec::new(), Vec::new(), false);
    let mut bytes = rest.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if inside => {
                words.push(std::mem::take(&mut word));
                inside = false;
            }
            b'"' => inside = true,
            b'\\' if inside => match bytes.next() {
                Some(b'x') => {
                    let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                    let digits = String::from_utf8(digits).expect("two digits");
                    word.push(u8::from_str_radix(&digits, 16).expect("two digits"));
                }
                Some(b'n') => word.push(b'\n'),
                Some(b'r') => word.push(b'\r'),
                Some(b't') => word.push(b'\t'),
                Some(b'a') => word.push(7),
                Some(b'b') => word.push(8),
                Some(other) => word.push(other),
                None => {}
            },
            _ if inside => word.push(byte),
            _ => {}
        }
    }
    words
}

/// The name of each script by its digest, whatever goes before it.
fn scripts() -> BTreeMap<String, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let read = |path: &str| fs::read_to_string(sources.join(path)).expect("a script");
    let (ours, workers, take) =
        (read("lua/prelude.lua"), read("channel/lua/prelude.lua"), read("channel/lua/take.lua"));
    let before = [String::new(), ours, workers.clone(), take.clone(), workers + &take];
    let mut names = BTreeMap::new();
    for folder in ["lua", "channel/lua"] {
        for file in fs::read_dir(sources.join(folder)).expect("a folder").flatten() {
            let (name, text) = (file.file_name(), fs::read_to_string(file.path()).expect("a script"));
            for prelude in &before {
                let digest = redis::Script::new(&format!("{prelude}{text}")).get_hash().to_owned();
                names.insert(digest, format!("{folder}/{}", name.to_string_lossy().trim_end_matches(".lua")));
            }
        }
    }
    names
}
