//! Both ends of a TLS connection over a pipe, and hostile first messages.

use std::future::poll_fn;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::transport::{Pipe, pair};

/// Configurations that trust each other.
fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let own = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("a").unwrap()
}

/// Both ends behind a handshake.
async fn shaken() -> (TlsStream, tokio_rustls::client::TlsStream<Pipe>) {
    let (server, client) = configs();
    let (near, far) = pair();
    let mut stream = TlsStream::new(near.into(), server).unwrap();
    let connecting = TlsConnector::from(client).connect(name(), far);
    let (shaken, connected) = tokio::join!(
        poll_fn(|context| stream.poll_handshake(context)),
        connecting
    );
    shaken.unwrap();
    (stream, connected.unwrap())
}

#[tokio::test]
async fn a_connection_that_waits_has_no_buffers() {
    let (mut stream, mut client) = shaken().await;
    let (mut got, mut answer) = (vec![0; 40_000], vec![0; 100_000]);
    for _ in 0..3 {
        client.write_all(&vec![b'q'; 40_000]).await.unwrap();
        stream.read_exact(&mut got).await.unwrap();
        let (written, read) = tokio::join!(
            async {
                stream.write_all(&vec![b'a'; 100_000]).await?;
                stream.flush().await
            },
            client.read_exact(&mut answer)
        );
        written.unwrap();
        read.unwrap();
        assert!(answer.iter().all(|byte| *byte == b'a'));
        for buffer in [
            &stream.incoming,
            &stream.plain.bytes,
            &stream.outgoing.bytes,
        ] {
            assert_eq!(buffer.capacity(), 0);
        }
    }
    assert!(size_of::<TlsStream>() < 2048, "{}", size_of::<TlsStream>());
}

#[tokio::test]
async fn both_sides_end_with_close_notify() {
    let (mut stream, mut client) = shaken().await;
    stream.write_all(b"last").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    // Without the alert this is an error.
    client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"last");
    client.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

/// The bytes of a client's first message.
fn hello(client: &Arc<ClientConfig>) -> Vec<u8> {
    let mut client = ClientConnection::new(Arc::clone(client), name()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A panic would be one that the network causes.
#[tokio::test]
async fn no_bytes_of_a_client_make_a_panic() {
    let (server, client) = configs();
    let hello = hello(&client);
    let mut random = fastrand::Rng::with_seed(20_261_128);
    let mut failed = 0;
    for round in 0..3_000 {
        let mut bytes = hello.clone();
        match round % 4 {
            0 => bytes.truncate(random.usize(..bytes.len())),
            1 => {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            // A second message, or any bytes, behind a good one.
            2 => bytes.extend_from_slice(&hello[..random.usize(..hello.len())]),
            _ => bytes.extend((0..random.usize(..600)).map(|_| random.u8(..))),
        }
        if random.bool() {
            // The message in records of a few bytes each.
            let pieces = hello[5..].chunks(random.usize(1..64));
            let record = |piece: &[u8]| {
                let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
                [&[22, 3, 1], &length[..], piece].concat()
            };
            let mut cut: Vec<u8> = pieces.flat_map(record).collect();
            cut.extend_from_slice(bytes.get(hello.len()..).unwrap_or_default());
            bytes = cut;
        }
        let (near, mut far) = pair();
        let mut stream = TlsStream::new(near.into(), Arc::clone(&server)).unwrap();
        far.write_all(&bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let shaken = poll_fn(|context| stream.poll_handshake(context)).await;
        failed += u32::from(shaken.is_err());
    }
    assert_eq!(failed, 3_000);
}
