//! TLS as the URLs of Celery ask for it: which of their parameters are honoured, and what is to be given instead of the others.
//!
//! kombu and Celery read `ssl_cert_reqs`, `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and `ssl_check_hostname`
//! (`celery/backends/redis.py`, `kombu/utils/url.py`); `#insecure` is a habit of Rust's client.

use std::path::PathBuf;

use super::secret::Secret;

/// What a URL says of TLS, as far as it is acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wishes {
    /// It asks not to check the certificate, which is checked all the same.
    pub no_check: bool,
}

/// What is given besides the URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    /// The certificate authority of the server.
    pub authority: bool,
    /// A certificate of the client.
    pub identity: bool,
}

impl Wishes {
    /// Reads the parameters of a URL. An error names the one that cannot be heeded, and what to give instead.
    pub fn of(url: &str, given: Given) -> Result<Self, String> {
        let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
        if fragment.starts_with("insecure") {
            return Err("#insecure is not supported, the certificate is always checked; give its authority, or the certificate \
                        itself, as REDIS_CA"
                .into());
        }
        let mut wishes = Self::default();
        for (name, value) in parameters(rest) {
            let is_off = matches!(value.to_ascii_lowercase().as_str(), "false" | "0" | "no" | "none");
            match name {
                "ssl_cert_reqs" => wishes.no_check = matches!(&*value.to_ascii_lowercase(), "none" | "cert_none"),
                "ssl_ca_certs" if !given.authority => {
                    return Err("the file of ssl_ca_certs is not read; give its certificates as REDIS_CA".into());
                }
                "ssl_certfile" | "ssl_keyfile" if !given.identity => {
                    return Err(format!(
                        "the file of {name} is not read; give the client's certificate as REDIS_CLIENT_CERT, and its key as \
                         REDIS_CLIENT_KEY"
                    ));
                }
                "ssl_check_hostname" if is_off => {
                    return Err(
                        "ssl_check_hostname=false is not supported; use the host name that the certificate has".into(),
                    );
                }
                _ => {}
            }
        }
        Ok(wishes)
    }
}

/// The file that this parameter of a URL names.
pub(super) fn file(parameter: &str, url: &Secret) -> Option<PathBuf> {
    let url = url.reveal().trim().split('#').next()?;
    let (_, path) = parameters(url).find(|(name, path)| *name == parameter && !path.is_empty())?;
    Some(PathBuf::from(path))
}

/// Whether a URL of sentinels asks for TLS: there is no scheme for it, and kombu (`kombu/utils/url.py`) takes any of these
/// parameters for the wish.
pub(super) fn is_wished(url: &str) -> bool {
    parameters(url).any(|(name, _)| name.starts_with("ssl_"))
}

/// The parameters of a URL, or of all the URLs of sentinels in one text.
fn parameters(url: &str) -> impl Iterator<Item = (&str, String)> {
    let queries = url.split(';').filter_map(|part| part.split('#').next()?.split_once('?')).map(|(_, query)| query);
    let pairs = queries.flat_map(|query| query.split('&')).filter_map(|it| it.trim().split_once('='));
    pairs.map(|(name, value)| (name, decoded(value)))
}

/// Undoes the percent encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_tls_are_honoured_or_refused_by_name_with_what_to_give_instead() {
        let checked = Wishes { no_check: false };
        let unchecked = Wishes { no_check: true };
        let (nothing, authority) =
            (Given { authority: false, identity: false }, Given { authority: true, identity: false });
        let all = Given { authority: true, identity: true };
        for (query, given, expected) in [
            ("", nothing, Ok(checked)),
            ("?ssl_cert_reqs=required", nothing, Ok(checked)),
            ("?ssl_cert_reqs=CERT_NONE", nothing, Ok(unchecked)),
            ("?health_check_interval=5&ssl_cert_reqs=none", authority, Ok(unchecked)),
            ("?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem", authority, Ok(checked)),
            ("?ssl_ca_certs=/etc/ca.pem", nothing, Err(["ssl_ca_certs", "REDIS_CA"])),
            ("?ssl_certfile=/etc/client.pem", authority, Err(["ssl_certfile", "REDIS_CLIENT_CERT"])),
            ("?ssl_keyfile=/etc/client.key", authority, Err(["ssl_keyfile", "REDIS_CLIENT_KEY"])),
            ("?ssl_certfile=/etc/client.pem&ssl_keyfile=/etc/client.key", all, Ok(checked)),
            ("?ssl_check_hostname=False", authority, Err(["ssl_check_hostname", "host name"])),
            ("?ssl_check_hostname=true", authority, Ok(checked)),
            ("#insecure", authority, Err(["#insecure", "REDIS_CA"])),
        ] {
            let url = format!("rediss://:hunter2@redis:6379/0{query}");
            match (Wishes::of(&url, given), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{query}"),
                (Err(said), Err(named)) => {
                    assert!(
                        named.iter().all(|text| said.contains(text)) && !said.contains("hunter2"),
                        "{query}: {said}"
                    );
                }
                (found, _) => panic!("{query}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_files_of_certificates_are_read_from_the_url() {
        let file = |url: &str| file("ssl_ca_certs", &Secret::new(url));
        let quoted = "rediss://:p%40ss@redis/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fetc%2Fca.pem#x";
        assert_eq!(file(quoted), Some("/etc/ca.pem".into()));
        assert_eq!(file("rediss://redis/0?ssl_ca_certs=/etc/ca.pem"), Some("/etc/ca.pem".into()));
        assert_eq!(file("rediss://redis/0?ssl_ca_certs="), None);
        assert_eq!(file("rediss://redis/0"), None);
    }
}
