//! A Redis that asks its clients for a certificate.

use super::*;
use crate::support::redis::Setup;

#[test]
fn a_worker_shows_the_certificate_of_its_files_and_ends_at_its_start_in_words_without_a_fitting_pair() {
    let server = Setup::default().mutual_tls().start();
    let path = |name: &str| server.path(name).to_str().unwrap().to_owned();
    let ca = ("REDIS_CA_FILE", path("ca.crt"));
    let parameters = |certificate: &str, key: &str| {
        format!("?ssl_cert_reqs=required&ssl_certfile={}&ssl_keyfile={}", path(certificate), path(key))
    };
    let url = |parameters: &str| ("REDIS_URL", format!("{}{parameters}", server.url(0)));
    let by_variables = [
        ca.clone(),
        url(""),
        ("REDIS_CLIENT_CERT_FILE", path("client.crt")),
        ("REDIS_CLIENT_KEY_FILE", path("client.key")),
    ];
    for env in [&[ca.clone(), url(&parameters("client.crt", "client.key"))][..], &by_variables[..]] {
        Worker::start_with(env, TASKS, &[]).logs("ready");
    }
    let key = server.file("stranger.key");
    for (parameters, said) in [
        (String::new(), "asks for a client certificate; give it as REDIS_CLIENT_CERT"),
        (parameters("client.crt", "stranger.key"), "REDIS_CLIENT_KEY is not usable: it is not the key"),
        (parameters("client.crt", "none.key"), "none.key\\\" (REDIS_CLIENT_KEY_FILE, or ssl_keyfile of a URL)"),
        (format!("?ssl_certfile={}", path("client.crt")), "REDIS_CLIENT_KEY is not usable: it is missing"),
    ] {
        let mut worker = Worker::start_with(&[ca.clone(), url(&parameters)], TASKS, &[]);
        assert!(!worker.gone().success());
        let log = worker.log();
        assert!(log.contains(said) || log.replace("\\\"", "\"").contains(&said.replace("\\\"", "\"")), "{said}: {log}");
        assert!(key.lines().all(|line| line.len() < 20 || !log.contains(line)), "{log}");
    }
}
