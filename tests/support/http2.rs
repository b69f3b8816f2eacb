//! An HTTP/2 client: many requests on one connection, by prior knowledge.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use hyper::{HeaderMap, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::waiting::PATIENCE;

/// A connection. Dropped, it is cut.
pub(crate) struct Http2 {
    send: SendRequest<Bytes>,
    /// What drives it; it ends with the connection.
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// A request under way.
pub(crate) struct Asked {
    response: ResponseFuture,
    pub(crate) stream: SendStream<Bytes>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Http2 {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self::with(address, &Builder::new()).await
    }

    pub(crate) async fn with(address: SocketAddr, builder: &Builder) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, builder).await
    }

    /// A connection over a stream that is open.
    pub(crate) async fn over<S>(stream: S, builder: &Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = builder.handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        Self { send, driver }
    }

    /// Sends a request with this body, which may be empty.
    pub(crate) async fn ask(
        &mut self,
        request: Request<()>,
        body: &str,
    ) -> Result<Asked, h2::Error> {
        let ready = std::future::poll_fn(|context| self.send.poll_ready(context));
        timeout(PATIENCE, ready).await.expect("a stream in time")?;
        let (response, mut stream) = self.send.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true)?;
        }
        Ok(Asked { response, stream })
    }

    /// Begins a request without its body.
    pub(crate) fn begin(&mut self, request: Request<()>) -> Result<Asked, h2::Error> {
        let (response, stream) = self.send.send_request(request, false)?;
        Ok(Asked { response, stream })
    }

    /// Posts a wrapper.
    pub(crate) async fn begin_post(&mut self, body: &str) -> Asked {
        self.ask(post(), body).await.unwrap()
    }

    /// Posts a wrapper, and waits for its answer.
    pub(crate) async fn post(&mut self, body: &str) -> Reply {
        self.begin_post(body).await.reply().await.unwrap()
    }

    /// Waits for the end of the connection.
    pub(crate) async fn ended(mut self) -> Result<(), h2::Error> {
        let ended = timeout(PATIENCE, &mut self.driver).await;
        ended.expect("it ends in time").unwrap()
    }
}

/// The head of a BOSH request.
pub(crate) fn post() -> Request<()> {
    request("POST", "/http-bind")
}

/// The head of a request.
pub(crate) fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://a{path}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

impl Asked {
    /// The answer.
    pub(crate) async fn reply(self) -> Result<Reply, h2::Error> {
        let answer = timeout(PATIENCE, self.response).await;
        let (head, mut stream) = answer.expect("an answer in time")?.into_parts();
        let mut body = BytesMut::new();
        while let Some(data) = timeout(PATIENCE, stream.data()).await.expect("in time") {
            let data = data?;
            let _ = stream.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        })
    }

    /// How the stream ends if its client opens no window.
    pub(crate) async fn unread(self) -> h2::Error {
        let answer = timeout(PATIENCE, self.response).await;
        let mut stream = answer.expect("an answer in time").unwrap().into_body();
        loop {
            let data = timeout(PATIENCE, stream.data())
                .await
                .expect("an end in time");
            if let Err(error) = data.expect("an end that is no whole answer") {
                return error;
            }
        }
    }

    /// Why the stream was reset.
    pub(crate) async fn reset(self) -> Reason {
        let error = self.reply().await.expect_err("a reset");
        error.reason().unwrap_or_else(|| panic!("{error:?}"))
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// An attribute of the wrapper.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let tag = self.body.split('>').next()?;
        let value = tag.split_once(&format!(" {name}="))?.1;
        let quote = value.chars().next()?;
        value.get(1..)?.split(quote).next()
    }
}
