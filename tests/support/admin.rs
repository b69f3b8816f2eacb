//! Requests to an admin listener.

use std::net::SocketAddr;

use bowline::demo::client::{Client, Error, Reply};

use super::waiting::PATIENCE;

/// Sends one request, with the header that marks it as the operator's.
pub(crate) async fn request(admin: SocketAddr, method: &str, target: &str) -> Result<Reply, Error> {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nX-Bowline: 1\r\nConnection: close\r\n\r\n"
    );
    let client = Client::to(admin).deadline(PATIENCE);
    client.post_raw(request.as_bytes()).await
}

/// The answer to a `GET`.
pub(crate) async fn get(admin: SocketAddr, target: &str) -> Result<Reply, Error> {
    request(admin, "GET", target).await
}

/// The answer to a `GET`.
///
/// # Panics
/// There is none.
pub(crate) async fn ask(admin: SocketAddr, target: &str) -> Reply {
    get(admin, target).await.unwrap()
}
