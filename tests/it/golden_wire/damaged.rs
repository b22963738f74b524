//! Decoders and native worker against damaged recordings, quick enough for every run; `make fuzz` goes further.

#[path = "../../../fuzz/exercise.rs"]
mod exercise;
#[path = "../../../fuzz/task.rs"]
mod task;

use std::time::Instant;

use crewjob::wire::Envelope;

use super::{Golden, goldens};

/// Marsaglia's xorshift: the same inputs in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        const TOKENS: [&[u8]; 14] = [
            b"null", b"{}", b"[]", b"\"\"", b"NaN", b"-0", b"1e999", b"\\ud800", b"[[[[", b"\xff", b"\"id\":", b",",
            b"}", b"true",
        ];
        for _ in 0..=self.below(4) {
            let (at, to) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let (from, to) = (at.min(to), at.max(to).min(at.min(to) + 64));
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(from..to)),
                3 => bytes.splice(at..at, bytes[from..to].to_vec()).for_each(drop),
                4 => {
                    let start = self.below(other.len());
                    let end = (start + self.below(64)).min(other.len());
                    bytes.splice(from..to, other[start..end].iter().copied()).for_each(drop);
                }
                _ => bytes.splice(from..to, TOKENS[self.below(TOKENS.len())].iter().copied()).for_each(drop),
            }
        }
    }
}

#[test]
fn damaged_recordings_never_make_a_decoder_or_a_worker_panic() {
    let inputs = std::env::var("CREWJOB_FUZZ_INPUTS").map_or(20_000, |count| count.parse().unwrap());
    let seeds: Vec<Vec<u8>> = goldens()
        .into_iter()
        .flat_map(|golden| {
            let body =
                Envelope::decode(&golden.bytes).ok().and_then(|envelope| envelope.body_bytes().ok().map(Into::into));
            [Some(golden.bytes), body]
        })
        .flatten()
        .collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let started = Instant::now();
    for _ in 0..inputs {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        random.mutate(&mut bytes, other);
        exercise::decoder(u8::try_from(random.below(exercise::DECODERS.into())).unwrap(), &bytes);
        bytes.insert(0, u8::try_from(random.below(4)).unwrap());
        task::message(&bytes);
    }
    println!("{inputs} damaged inputs in {:.1?}", started.elapsed());
}

/// `make fuzz` names the folder that it starts from, with one for each of its targets.
#[test]
fn every_recording_is_a_seed_of_the_fuzzer_behind_the_byte_that_says_what_is_done_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = std::env::var_os("CREWJOB_FUZZ_CORPUS").map_or_else(|| folder.path().to_owned(), Into::into);
    let (for_decoders, for_worker) = (corpus.join("decoders"), corpus.join("worker"));
    for folder in [&for_decoders, &for_worker] {
        std::fs::create_dir_all(folder).unwrap();
    }
    for Golden { name, kind, bytes, .. } in goldens() {
        let decoders: &[u8] = match kind.as_str() {
            "envelope" => &[0, 1],
            "unacked" => &[2],
            "result" => &[0, 3],
            "event" => &[4],
            "pidbox-request" => &[5],
            "pidbox-reply" => &[6],
            _ => &[7],
        };
        let body = Envelope::decode(&bytes).ok().and_then(|envelope| envelope.body_bytes().ok().map(Vec::from));
        let wrapped: &[u8] = match kind.as_str() {
            "envelope" => &[0, 8],
            "event" => &[0, 9],
            _ => &[0, 10],
        };
        if kind == "envelope" {
            let shapes = [Some(&bytes), body.as_ref(), None, body.as_ref()];
            for (shape, bytes) in (0_u8..).zip(shapes) {
                let file = for_worker.join(format!("{}-{shape}", name.replace('/', "-")));
                std::fs::write(file, [&[shape][..], bytes.map_or(&b"{}"[..], Vec::as_slice)].concat()).unwrap();
            }
        }
        let seeds = decoders.iter().map(|decoder| (decoder, &bytes));
        let bodies = wrapped.iter().flat_map(|decoder| body.iter().map(move |body| (decoder, body)));
        for (decoder, bytes) in seeds.chain(bodies) {
            let file = format!("{}-{decoder}", name.replace('/', "-"));
            std::fs::write(for_decoders.join(file), [&[*decoder], bytes.as_slice()].concat()).unwrap();
        }
    }
    let seeds = |folder| std::fs::read_dir(folder).unwrap().count();
    assert!(seeds(for_decoders) >= goldens().len() && seeds(for_worker) > 100);
}
