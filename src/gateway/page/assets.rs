//! The page itself: files that are a part of this program.

use axum::body::Body;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::super::answer::{Answer, text};
use crate::core::gateway::key::hexadecimal;

/// Only the page's own files and the gateway it came from: no other site, nothing inline, no frame around it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! files {
    ($($name:literal $kind:expr;)+) => {
        const FILES: &[(&str, &str, &str)] = &[$(($name, $kind, include_str!(concat!("assets/", $name))),)+];
    };
}

files! {
    "index.html" "text/html; charset=utf-8";
    "icon.svg" "image/svg+xml";
    "base.css" STYLE;
    "screens.css" STYLE;
    "theme.js" SCRIPT;
    "app.js" SCRIPT;
    "actions.js" SCRIPT;
    "api.js" SCRIPT;
    "attempts.js" SCRIPT;
    "dom.js" SCRIPT;
    "filters.js" SCRIPT;
    "format.js" SCRIPT;
    "job.js" SCRIPT;
    "jobs.js" SCRIPT;
    "live.js" SCRIPT;
    "log.js" SCRIPT;
    "namespaces.js" SCRIPT;
    "pools.js" SCRIPT;
    "rights.js" SCRIPT;
    "rows.js" SCRIPT;
    "schedules.js" SCRIPT;
    "signin.js" SCRIPT;
    "submit.js" SCRIPT;
}

/// A file by its name; one that the browser has already is not sent again.
pub fn file(name: &str, asked: &HeaderMap) -> Option<Answer> {
    let (_, kind, content) = FILES.iter().find(|(known, ..)| *known == name)?;
    let tag = format!("\"{}\"", tag(content));
    let is_known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = if is_known {
        text(StatusCode::NOT_MODIFIED, kind, Body::empty())
    } else {
        text(StatusCode::OK, kind, *content)
    };
    let headers = answer.headers_mut();
    // It is asked for each time, so that the files of two versions are never mixed for long.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Some(answer)
}

fn tag(content: &str) -> String {
    hexadecimal(&Sha256::digest(content)[..8])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn content(name: &str) -> &'static str {
        FILES.iter().find(|(known, ..)| *known == name).unwrap().2
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway/page/assets");
        let there = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let served = FILES.iter().map(|(name, ..)| (*name).to_owned());
        assert_eq!(there.collect::<BTreeSet<_>>(), served.collect::<BTreeSet<_>>());
    }

    #[test]
    fn nothing_is_inline_nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
        let page = content("index.html");
        assert!(!page.contains("style=") && !page.contains("<style") && !page.contains("onclick"), "{page}");
        assert!(page.matches("<script").count() == page.matches("<script src=\"page/").count() + 1);
        for (name, kind, content) in FILES {
            let foreign = content.replace("http://www.w3.org/", "");
            assert!(!foreign.contains("http://") && !foreign.contains("https://"), "{name} names another site");
            if *kind == SCRIPT {
                for unsafe_call in
                    ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
                {
                    assert!(!content.contains(unsafe_call), "{name} has {unsafe_call}");
                }
            }
            assert!(content.lines().count() <= 250, "{name} is long");
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again_and_every_file_has_the_policy() {
        let first = file("app.js", &HeaderMap::new()).unwrap();
        let tag = first.headers()[header::ETAG].clone();
        let again = file("app.js", &HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)])).unwrap();
        assert_eq!((first.status().as_u16(), again.status().as_u16()), (200, 304));
        for (name, ..) in FILES {
            let answer = file(name, &HeaderMap::new()).unwrap();
            assert!(
                answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'")
            );
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
        assert!(file("../../config.rs", &HeaderMap::new()).is_none());
    }
}
