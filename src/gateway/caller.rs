//! Which caller a request is of: what it is counted under, and what the API server is told of it.
//!
//! A token says of which user it is, and only the API server knows whether it is true. Until it has accepted a token, requests count
//! for the address that they come from, so that made-up tokens have no counts of their own.

use std::collections::HashMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::config::{Config, Mode};
use crate::core::gateway::headers::bearer;
use crate::core::gateway::key::hexadecimal;
use crate::core::gateway::network::{self, Range, is_trusted};
use crate::core::gateway::problem::{Kind, Problem};

/// Tokens that are remembered twice as long as it takes to meet so many others.
const REMEMBERED: usize = 8192;
/// Bytes of a user's or a group's name, and groups of a user.
const LONGEST_USER: usize = 256;
const GROUPS: usize = 256;
/// What the names of Kubernetes' own users and groups begin with. A proxy names none of them.
const RESERVED: &str = "system:";

/// The caller of one request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What its requests and streams are counted under: a digest.
    pub key: String,
    /// The user that a trusted proxy has named.
    pub user: Option<String>,
    /// What goes on to the API server.
    pub authorization: Option<HeaderValue>,
    /// As which user and groups the API server is to take it, in its own headers.
    acts_as: HeaderMap,
    /// The digest of its token, while the API server has not accepted it yet.
    stranger: Option<[u8; 32]>,
}

impl Caller {
    /// What tells it from other callers where the API server does not: see `core::gateway::key::identity`.
    pub fn scope(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }

    /// The headers from which its rights at the API server follow.
    pub fn rights(&self) -> HeaderMap {
        let mut headers = self.acts_as.clone();
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        headers
    }
}

/// Tells callers apart.
#[derive(Debug)]
pub struct Callers {
    mode: Mode,
    proxies: Vec<Range>,
    user_header: Option<String>,
    groups_header: Option<String>,
    known: Mutex<Known>,
}

/// The keys of accepted tokens, by their digests: those met lately, and those before them.
#[derive(Debug, Default)]
struct Known {
    lately: HashMap<[u8; 32], String>,
    before: HashMap<[u8; 32], String>,
}

impl Known {
    fn key(&mut self, token: &[u8; 32]) -> Option<String> {
        if let Some(key) = self.lately.get(token) {
            return Some(key.clone());
        }
        let key = self.before.remove(token)?;
        self.note(*token, key.clone());
        Some(key)
    }

    fn note(&mut self, token: [u8; 32], key: String) {
        if self.lately.len() >= REMEMBERED {
            self.before = std::mem::take(&mut self.lately);
        }
        self.lately.insert(token, key);
    }
}

impl Callers {
    /// As the settings say.
    pub fn new(config: &Config) -> Self {
        let (user_header, groups_header) = (config.user_header.clone(), config.groups_header.clone());
        let proxies = config.trusted_proxies.clone();
        Self { mode: config.mode, proxies, user_header, groups_header, known: Mutex::default() }
    }

    /// The caller of a request with these headers from this address.
    pub fn identify(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Caller, Problem> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let address = network::client(peer, text("x-forwarded-for"), &self.proxies);
        let by_address = || digest(&["address", &address.to_string()]);
        match self.mode {
            Mode::Forward => {
                let token = text("authorization").and_then(bearer).ok_or_else(|| {
                    Problem::new(Kind::Unauthenticated, "send a token of the cluster: Authorization: Bearer TOKEN")
                })?;
                let token_digest: [u8; 32] = Sha256::digest(token).into();
                let known = self.known.lock().key(&token_digest);
                let stranger = known.is_none().then_some(token_digest);
                let mut authorization = headers.get(AUTHORIZATION).cloned();
                if let Some(value) = &mut authorization {
                    value.set_sensitive(true);
                }
                let acts_as = HeaderMap::new();
                Ok(Caller { key: known.unwrap_or_else(by_address), user: None, authorization, acts_as, stranger })
            }
            Mode::Fixed | Mode::Impersonate => {
                let (authorization, stranger) = (None, None);
                let Some(header) = &self.user_header else {
                    let acts_as = HeaderMap::new();
                    return Ok(Caller { key: by_address(), user: None, authorization, acts_as, stranger });
                };
                let is_named = headers.contains_key(header.as_str());
                if !is_trusted(peer.to_canonical(), &self.proxies) {
                    let detail = if is_named {
                        format!("it has the header {header}, which only a trusted proxy may set")
                    } else {
                        "only trusted proxies may send requests, with the name of a user".to_owned()
                    };
                    return Err(Problem::new(Kind::UntrustedProxy, detail));
                }
                let user = user(headers, header)?;
                let acts_as = match self.mode {
                    Mode::Impersonate => acts_as(headers, &user, self.groups_header.as_deref())?,
                    Mode::Forward | Mode::Fixed => HeaderMap::new(),
                };
                Ok(Caller { key: digest(&["user", &user]), user: Some(user), authorization, acts_as, stranger })
            }
        }
    }

    /// The API server has accepted the caller's token: from now on its requests count for its user. Returns what it is counted under.
    pub fn accepted(&self, caller: &Caller) -> String {
        let Some(token) = caller.stranger else { return caller.key.clone() };
        let text = caller.authorization.as_ref().and_then(|value| value.to_str().ok()).and_then(bearer);
        let key = match text.and_then(subject) {
            // The API server has checked its signature, so that the user is as it says. All tokens of a user count together.
            Some((issuer, subject)) => digest(&["subject", &issuer, &subject]),
            None => digest(&["token", &hexadecimal(&token)]),
        };
        self.known.lock().note(token, key.clone());
        key
    }
}

fn user(headers: &HeaderMap, header: &str) -> Result<String, Problem> {
    let mut values = headers.get_all(header).iter();
    let first = values.next().and_then(|value| value.to_str().ok()).map(str::trim);
    match (first, values.next()) {
        (Some(user), None) if !user.is_empty() && user.len() <= LONGEST_USER => Ok(user.to_owned()),
        (Some(_) | None, _) => {
            let detail =
                format!("the proxy has not named one user of at most {LONGEST_USER} bytes in the header {header}");
            Err(Problem::new(Kind::Unauthenticated, detail))
        }
    }
}

/// The headers by which the gateway's own account acts as this user of these groups.
fn acts_as(headers: &HeaderMap, user: &str, groups_header: Option<&str>) -> Result<HeaderMap, Problem> {
    let values = groups_header.into_iter().flat_map(|name| headers.get_all(name));
    let groups = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    let groups: Vec<&str> = groups.map(str::trim).filter(|group| !group.is_empty()).collect();
    let refused = |detail: String| Problem::new(Kind::Unauthenticated, detail);
    if groups.len() > GROUPS {
        return Err(refused(format!("the proxy names more than {GROUPS} groups")));
    }
    let mut acts_as = HeaderMap::new();
    let groups = groups.into_iter().map(|group| ("impersonate-group", group));
    for (header, name) in std::iter::once(("impersonate-user", user)).chain(groups) {
        if name.starts_with(RESERVED) {
            return Err(refused(format!("the proxy names {name:?}: names with {RESERVED} are Kubernetes' own")));
        }
        let value = HeaderValue::from_str(name).ok().filter(|_| name.len() <= LONGEST_USER);
        let value =
            value.ok_or_else(|| refused("the proxy names a user or a group that no header can name".to_owned()))?;
        acts_as.append(HeaderName::from_static(header), value);
    }
    Ok(acts_as)
}

/// Issuer and subject of a JSON Web Token, unchecked.
fn subject(token: &str) -> Option<(String, String)> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let claim = |name: &str| Some(claims.get(name)?.as_str()?.to_owned());
    Some((claim("iss")?, claim("sub")?))
}

/// A digest of texts, each with its length before it.
fn digest(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    }
    hexadecimal(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }

    fn callers(line: &str) -> Callers {
        Callers::new(&Line::parse_from(std::iter::once("gateway").chain(line.split_whitespace())).config)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn token(claims: &str, signature: &str) -> String {
        format!("Bearer e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_counts_for_its_address_until_it_was_accepted_and_then_for_its_user() {
        let callers = callers("--mode forward");
        let claims = r#"{"iss": "cluster", "sub": "system:serviceaccount:a:b"}"#;
        let from = |address: &str, token: &str| {
            callers.identify(peer(address), &headers(&[("authorization", token)])).unwrap()
        };
        let (first, forged) = (from("10.0.0.1", &token(claims, "x")), from("10.0.0.1", &token(claims, "forged")));
        assert_eq!(first.key, forged.key, "both are unknown");
        assert_ne!(first.key, from("10.0.0.2", &token(claims, "x")).key);
        let own = callers.accepted(&first);
        assert_eq!(from("10.0.0.9", &token(claims, "x")).key, own);
        assert_ne!(
            from("10.0.0.1", &token(claims, "forged")).key,
            own,
            "a token that says the same and was never accepted"
        );
        let renewed = from("10.0.0.1", &token(claims, "y"));
        assert_eq!(callers.accepted(&renewed), own, "another token of the same user");
        assert!(
            !own.contains("serviceaccount") && !format!("{first:?}").contains("e30"),
            "no token is in logs: {first:?}"
        );
    }

    #[test]
    fn a_request_without_a_token_is_refused_where_tokens_go_on() {
        let callers = callers("--mode forward");
        for pairs in
            [&[][..], &[("authorization", "Basic YTpi")], &[("authorization", "Bearer ")], &[("cookie", "token=a")]]
        {
            let refused = callers.identify(peer("10.0.0.1"), &headers(pairs)).unwrap_err();
            assert_eq!(refused.kind, Kind::Unauthenticated, "{pairs:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_names_users_and_no_token_of_a_caller_goes_on_beside_a_service_account() {
        let callers = callers("--mode fixed --trusted-proxies 10.0.0.0/8 --user-header x-user");
        let named = |address: &str, pairs: &[(&'static str, &str)]| callers.identify(peer(address), &headers(pairs));
        let caller = named("10.1.1.1", &[("x-user", "ada"), ("authorization", "Bearer t")]).unwrap();
        assert_eq!((caller.user.as_deref(), &caller.authorization, caller.scope()), (Some("ada"), &None, "ada"));
        assert_eq!(named("203.0.113.9", &[("x-user", "ada")]).unwrap_err().kind, Kind::UntrustedProxy);
        assert_eq!(named("203.0.113.9", &[]).unwrap_err().kind, Kind::UntrustedProxy);
        let via = [("x-user", "ada"), ("x-forwarded-for", "10.1.1.1")];
        assert_eq!(named("203.0.113.9", &via).unwrap_err().kind, Kind::UntrustedProxy, "the peer counts");
        for pairs in [&[][..], &[("x-user", " ")], &[("x-user", "ada"), ("x-user", "eve")]] {
            assert_eq!(named("10.1.1.1", pairs).unwrap_err().kind, Kind::Unauthenticated, "{pairs:?}");
        }
    }

    #[test]
    fn the_user_that_a_trusted_proxy_names_is_acted_as_with_its_groups_and_is_none_of_kubernetes_own() {
        let line = "--mode impersonate --trusted-proxies 10.0.0.0/8 --user-header x-user --groups-header x-groups";
        let callers = callers(line);
        let named = |address: &str, pairs: &[(&'static str, &str)]| callers.identify(peer(address), &headers(pairs));
        let caller =
            named("10.1.1.1", &[("x-user", "ada"), ("x-groups", "crew, research,"), ("authorization", "Bearer t")]);
        let rights = caller.unwrap().rights();
        let of = |name: &str| rights.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((of("impersonate-user"), of("impersonate-group")), (vec!["ada"], vec!["crew", "research"]));
        assert!(of("authorization").is_empty(), "the client adds that of the gateway");
        for pairs in [&[("x-user", "system:admin")][..], &[("x-user", "ada"), ("x-groups", "crew,system:masters")], &[]]
        {
            assert_eq!(named("10.1.1.1", pairs).unwrap_err().kind, Kind::Unauthenticated, "{pairs:?}");
        }
        assert_eq!(named("203.0.113.9", &[("x-user", "ada")]).unwrap_err().kind, Kind::UntrustedProxy);
    }

    #[test]
    fn tokens_are_remembered_in_bounded_memory_and_those_in_use_stay() {
        let mut known = Known::default();
        let token = |number: usize| Sha256::digest(number.to_string()).into();
        for number in 0..5 * REMEMBERED {
            known.note(token(number), number.to_string());
            assert_eq!(known.key(&token(0)).as_deref(), Some("0"), "after {number}");
        }
        assert!(known.lately.len() <= REMEMBERED && known.before.len() <= REMEMBERED);
    }
}
