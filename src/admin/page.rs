//! The live page: one HTML file with its style and its script, which shows what `/health`,
//! `/history` and `/stream` tell, and sends what the operator decides to `/nodes/NAME/state`.
//!
//! The page holds nothing of the cluster. A browser runs and applies only what is in this file:
//! the policy that goes with it names the hashes of its script and of its style.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::X_FRAME_OPTIONS;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};
use sha2::{Digest as _, Sha256};

/// The page.
pub(super) const PAGE: &str = include_str!("page.html");

/// What the browser is to allow it: its own script and style, the icon that is written within it,
/// and requests to where it came from. No markup is ever made of text.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash_of("script"),
        hash_of("style"),
    );
    HeaderValue::from_str(&policy).expect("letters, digits and signs of ASCII")
});

/// The headers that guard the page.
pub(super) fn guards() -> [(HeaderName, HeaderValue); 4] {
    let fixed = HeaderValue::from_static;
    [
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (REFERRER_POLICY, fixed("no-referrer")),
        // For browsers that do not know `frame-ancestors`.
        (X_FRAME_OPTIONS, fixed("DENY")),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            fixed("same-origin"),
        ),
    ]
}

/// SHA-256 of what stands between the tags of the one element `tag`, in Base64.
fn hash_of(tag: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(content_of(tag)))
}

fn content_of(tag: &str) -> &'static str {
    let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
    let (_, rest) = PAGE.split_once(&begin).expect("the page has the element");
    let (content, _) = rest.split_once(&end).expect("the element ends");
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest that the page may be, in bytes.
    const MOST: usize = 66_000;

    #[test]
    fn the_page_is_small_and_whole() {
        assert!(PAGE.len() < MOST, "{} bytes", PAGE.len());
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert_eq!(PAGE.matches(&format!("</{tag}>")).count(), 1, "{tag}");
        }
    }

    /// What the policy would stop in the browser is not even tried.
    #[test]
    fn nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
        let script = content_of("script");
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "?token",
        ] {
            assert!(!script.contains(word), "{word}");
        }
        let markup = PAGE.replace(script, "");
        for word in [" src=", " style=", " onclick", " onload", "@import", "url("] {
            assert!(!markup.contains(word), "{word}");
        }
        let links = PAGE.match_indices("://").map(|(at, _)| {
            let begin = PAGE[..at].rfind(['\'', '"']).map_or(0, |quote| quote + 1);
            &PAGE[begin..at + "://www.w3.org/2000/svg".len()]
        });
        for link in links {
            assert_eq!(link, "http://www.w3.org/2000/svg", "a name, no address");
        }
    }

    /// Against values that another program computed (openssl dgst -sha256 -binary | base64).
    #[test]
    fn hashes_are_those_of_the_standard() {
        let empty = BASE64_STANDARD.encode(Sha256::digest(""));
        assert_eq!(empty, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        let policy = POLICY.to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2);
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(policy.contains(&format!("script-src 'sha256-{}'", hash_of("script"))));
    }
}
