//! Pages of another origin that send credentials or headers of their own.

use bowline::config::{CorsOwner, Origins};
use bowline::demo::client::{Client, Reply};
use bowline::demo::node::{Fate, Fault, Kind, Node};

use crate::balancer::*;
use crate::routing::creation;

const PAGE: &str = "https://chat.example.com";

/// A balancer whose `cors.origins` is [`PAGE`] alone.
async fn balancer(nodes: &[Node], credentials: bool, headers: &[&str]) -> Balancer {
    let mut settings = settings(nodes);
    settings.cors.origins = Origins::Only(vec![PAGE.to_owned()]);
    settings.cors.credentials = credentials;
    settings.cors.headers = headers.iter().map(|&name| name.to_owned()).collect();
    Balancer::start(&settings).await
}

/// Sends one request of a page, with what a browser adds to it.
async fn ask(balancer: &Balancer, line: &str, origin: Option<&str>, body: &str) -> Reply {
    let origin = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let request = format!(
        "{line} HTTP/1.1\r\nHost: a\r\n{origin}Authorization: Basic c2VjcmV0\r\n\
         Cookie: sso=c2VjcmV0\r\n{length}\r\n{body}"
    );
    let client = balancer.client();
    client.post_raw(request.as_bytes()).await.unwrap()
}

/// One request for each way to an answer: a node's, the balancer's own, and refusals of each stage.
fn requests() -> [(&'static str, String); 6] {
    [
        ("POST /http-bind", creation()),
        ("POST /http-bind", "<body/>".to_owned()),
        ("GET /http-bind", String::new()),
        ("OPTIONS /http-bind", String::new()),
        ("PUT /http-bind", String::new()),
        ("GET /other", String::new()),
    ]
}

fn allows(reply: &Reply) -> (Option<&str>, Option<&str>) {
    (
        reply.header("access-control-allow-origin"),
        reply.header("access-control-allow-credentials"),
    )
}

#[tokio::test]
async fn every_answer_to_a_listed_page_allows_credentials() {
    let nodes = tigase_nodes(1).await;
    let balancer = balancer(&nodes, true, &[]).await;
    for (line, body) in requests() {
        let reply = ask(&balancer, line, Some(PAGE), &body).await;
        assert_eq!(
            allows(&reply),
            (Some(PAGE), Some("true")),
            "{line}: {reply:?}"
        );
        assert_eq!(reply.header("vary"), Some("Origin"), "{line}: {reply:?}");
    }
}

/// A poll that the node holds for a second: its answer is written by other means than one that
/// comes at once.
#[tokio::test]
async fn an_answer_that_was_held_allows_credentials() {
    let nodes = tigase_nodes(1).await;
    let balancer = balancer(&nodes, true, &[]).await;
    let mut client = balancer.client().header("Origin", PAGE).wait(1);
    client.create().await.unwrap();
    let reply = client.poll().await.unwrap();
    assert_goes_on(&reply);
    assert_eq!(allows(&reply), (Some(PAGE), Some("true")), "{reply:?}");
}

#[tokio::test]
async fn no_other_page_may_send_credentials() {
    let nodes = tigase_nodes(1).await;
    let balancer = balancer(&nodes, true, &[]).await;
    for (line, body) in requests() {
        for origin in [
            None,
            Some("https://evil.example"),
            Some("null"),
            Some("https://chat.example.com.evil.example"),
        ] {
            let reply = ask(&balancer, line, origin, &body).await;
            assert_eq!(
                allows(&reply),
                (None, None),
                "{line}: {origin:?}: {reply:?}"
            );
            assert_eq!(reply.header("vary"), Some("Origin"), "{line}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn credentials_are_off_by_default() {
    let nodes = tigase_nodes(1).await;
    let balancer = balancer(&nodes, false, &[]).await;
    for (line, body) in requests() {
        let reply = ask(&balancer, line, Some(PAGE), &body).await;
        assert_eq!(allows(&reply), (Some(PAGE), None), "{line}: {reply:?}");
    }
    let reply = ask(&balancer, "OPTIONS /http-bind", Some(PAGE), "").await;
    let headers = reply.header("access-control-allow-headers");
    assert_eq!(headers, Some("Content-Type"));
}

#[tokio::test]
async fn a_preflight_allows_the_configured_headers() {
    let nodes = tigase_nodes(1).await;
    let balancer = balancer(&nodes, false, &["Authorization", "X-Foo"]).await;
    let reply = ask(&balancer, "OPTIONS /http-bind", Some(PAGE), "").await;
    let headers = reply.header("access-control-allow-headers");
    assert_eq!(headers, Some("Content-Type, Authorization, X-Foo"));
}

/// What a page proves to a proxy in front is not for the node.
#[tokio::test]
async fn no_credential_reaches_a_node() {
    let nodes = tigase_nodes(1).await;
    let balancer = balancer(&nodes, true, &["Authorization"]).await;
    let reply = ask(&balancer, "POST /http-bind", Some(PAGE), &creation()).await;
    assert!(reply.attribute("sid").is_some(), "{reply:?}");
    let record = nodes[0].record();
    let served: Vec<_> = record
        .iter()
        .filter(|seen| seen.fate == Fate::Served)
        .collect();
    assert_eq!(served.len(), 1);
    let text = served[0].text().to_ascii_lowercase();
    for secret in ["authorization", "cookie", "c2vjcmv0", "origin"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// What is said of origins in the answer.
fn cors_fields(reply: &Reply) -> Vec<(&str, &str)> {
    let fields = reply.headers.iter();
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| name.starts_with("access-control-") || *name == "vary")
        .collect();
    fields.sort_unstable();
    fields
}

/// A balancer that leaves origins to its nodes.
async fn passing(nodes: &[Node]) -> Balancer {
    let mut settings = settings(nodes);
    settings.cors.owner = CorsOwner::Pass;
    settings.cors.origins = Origins::Only(vec![PAGE.to_owned()]);
    Balancer::start(&settings).await
}

#[tokio::test]
async fn the_balancers_headers_replace_those_of_a_node() {
    let nodes = tigase_nodes(1).await;
    let own = balancer(&nodes, false, &[]).await;
    let reply = ask(&own, "POST /http-bind", Some(PAGE), &creation()).await;
    let expected = [("access-control-allow-origin", PAGE), ("vary", "Origin")];
    assert_eq!(cors_fields(&reply), expected);
}

#[tokio::test]
async fn a_nodes_headers_pass_where_it_owns_them() {
    let nodes = tigase_nodes(1).await;
    let balancer = passing(&nodes).await;
    let directly = Client::to(nodes[0].address())
        .post(&creation())
        .await
        .unwrap();
    let mut expected: Vec<(String, String)> = directly.headers.clone();
    expected.retain(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
    expected
        .iter_mut()
        .for_each(|(name, _)| name.make_ascii_lowercase());
    expected.sort_unstable();
    assert!(!expected.is_empty(), "{directly:?}");
    let reply = ask(&balancer, "POST /http-bind", Some(PAGE), &creation()).await;
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(cors_fields(&reply), expected);
    let record = nodes[0].record();
    let text = record.last().unwrap().text();
    assert!(text.contains(&format!("\r\nOrigin: {PAGE}\r\n")), "{text}");
    assert!(!text.contains("c2VjcmV0"), "{text}");
    // No node wrote this one.
    let refused = ask(&balancer, "PUT /http-bind", Some(PAGE), "").await;
    let own = [("access-control-allow-origin", PAGE), ("vary", "Origin")];
    assert_eq!(cors_fields(&refused), own);
}

#[tokio::test]
async fn a_preflight_goes_to_a_node_that_owns_the_headers() {
    let nodes = tigase_nodes(2).await;
    let balancer = passing(&nodes).await;
    let request = format!(
        "OPTIONS /http-bind HTTP/1.1\r\nHost: a\r\nOrigin: {PAGE}\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a\r\n\
         Cookie: sso=c2VjcmV0\r\n\r\n"
    );
    let ask = async || {
        balancer
            .client()
            .post_raw(request.as_bytes())
            .await
            .unwrap()
    };
    let reply = ask().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(!cors_fields(&reply).is_empty(), "{reply:?}");
    let preflights = |node: &Node| node.count(|seen| seen.kind == Kind::Options);
    let home = usize::from(preflights(&nodes[0]) == 0);
    let record = nodes[home].record();
    let seen = record
        .iter()
        .find(|seen| seen.kind == Kind::Options)
        .unwrap();
    assert_eq!(
        seen.text(),
        format!(
            "OPTIONS /http-bind HTTP/1.1\r\nHost: a\r\nOrigin: {PAGE}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a\r\n\r\n"
        )
    );
    // A node that fails is left for the next one.
    nodes[home].misbehave(Fault::losing_the_answer());
    let reply = ask().await;
    assert_eq!(
        (reply.status, preflights(&nodes[1 - home])),
        (200, 1),
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_preflight_that_no_node_can_answer_is_refused() {
    let nodes = tigase_nodes(1).await;
    let balancer = passing(&nodes).await;
    nodes[0].refuse().await;
    eventually("the node is down", || {
        !balancer.proxy().cluster.nodes()[0].is_up()
    })
    .await;
    let reply = ask(&balancer, "OPTIONS /http-bind", Some(PAGE), "").await;
    assert_eq!(reply.status, 503, "{reply:?}");
}
