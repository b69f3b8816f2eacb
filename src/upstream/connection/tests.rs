//! Exchanges over real sockets: the test is the node, and writes or closes when it likes.

use std::net::Ipv4Addr;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio::time::timeout;

use super::*;
use crate::transport::Stream;
use crate::transport::{KEEPALIVE_AFTER, USER_TIMEOUT};

mod half_close;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);
const MAX: usize = 1024 * 1024;
const ASK: &[u8] = b"POST / HTTP/1.1\r\nHost: t1\r\nContent-Length: 0\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A connection and the node's end of it.
async fn pair() -> (Connection, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connection = Connection::open(&[address], LONG).await.unwrap();
    let (node, _) = listener.accept().await.unwrap();
    node.set_nodelay(true).unwrap();
    (connection, node)
}

/// A pair on which a request was sent and read.
async fn asked() -> (Connection, TcpStream) {
    let (mut connection, mut node) = pair().await;
    ask(&mut connection, &mut node).await;
    (connection, node)
}

async fn ask(connection: &mut Connection, node: &mut TcpStream) {
    connection.send(ASK, LONG).await.unwrap();
    let mut request = vec![0; ASK.len()];
    node.read_exact(&mut request).await.unwrap();
    assert_eq!(request, ASK);
}

async fn receive(connection: &mut Connection) -> Result<Response, Error> {
    soon(connection.receive(MAX, LONG)).await
}

/// What `future` says, or a failure instead of a test that hangs.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(LONG, future).await.expect("it ends in time")
}

/// Writes the first 20 bytes of [`OK`] and waits until they can be read.
async fn begin(connection: &Connection, node: &mut TcpStream) {
    node.write_all(&OK[..20]).await.unwrap();
    soon(connection.stream.transport().socket().unwrap().readable())
        .await
        .unwrap();
}

/// Polls `future` once.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
}

/// Waits until the reactor has reported what the node did.
async fn until_not_quiet(connection: &mut Connection) {
    soon(async {
        while connection.is_quiet() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// An address at which nothing listens.
async fn vacant() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

fn reset(node: TcpStream) {
    SockRef::from(&node)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(node);
}

#[tokio::test]
async fn a_connection_carries_one_exchange_after_the_other() {
    let (mut connection, mut node) = pair().await;
    for round in 0..3 {
        assert!(connection.is_quiet());
        assert_eq!(connection.is_reused(), round > 0);
        ask(&mut connection, &mut node).await;
        assert!(!connection.is_quiet() && !connection.answer_began());
        node.write_all(OK).await.unwrap();
        let answer = receive(&mut connection).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        assert!(answer.reusable);
    }
}

#[tokio::test]
async fn no_address_and_no_listener() {
    let none = Connection::open(&[], LONG).await.unwrap_err();
    assert_eq!(none.label(), "no_address");
    let refused = Connection::open(&[vacant().await], LONG).await.unwrap_err();
    assert_eq!(refused.label(), "refused");
    assert!(refused.is_connect() && !refused.request_left());
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addresses = [vacant().await, listener.local_addr().unwrap()];
    let connection = Connection::open(&addresses, LONG).await.unwrap();
    assert_eq!(
        connection
            .stream
            .transport()
            .socket()
            .unwrap()
            .peer_addr()
            .unwrap(),
        addresses[1]
    );
}

/// A listener whose queue is full, so that a further connect gets no answer at all.
#[cfg(target_os = "linux")]
async fn swallowing() -> (socket2::Socket, Vec<Connection>, SocketAddr) {
    use socket2::{Domain, Socket, Type};

    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut queue = Vec::new();
    while let Ok(connection) = Connection::open(&[address], SHORT * 4).await {
        queue.push(connection);
        assert!(queue.len() < 100, "the queue is bounded");
    }
    (listener, queue, address)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_swallows_packets_leaves_time_for_the_next() {
    let (_listener, _queue, silent) = swallowing().await;
    let error = Connection::open(&[silent], SHORT).await.unwrap_err();
    assert_eq!(error.label(), "connect_timeout");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addresses = [silent, listener.local_addr().unwrap()];
    let begun = Instant::now();
    let opened = Connection::open(&addresses, SHORT * 20).await;
    assert_eq!(
        opened
            .unwrap()
            .stream
            .transport()
            .socket()
            .unwrap()
            .peer_addr()
            .unwrap(),
        addresses[1]
    );
    assert!(begun.elapsed() < SHORT * 18, "{:?}", begun.elapsed());

    let error = Connection::open(&[silent, vacant().await], SHORT * 10).await;
    assert_eq!(error.unwrap_err().label(), "refused");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_connected_to_itself_is_no_node() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let stream = Stream::from(socket.connect(address).await.unwrap());
    assert!(stream.is_own_end(address));
}

#[tokio::test]
async fn a_connection_is_prompt_and_watched_once_it_waits_for_long() {
    let (mut connection, _node) = asked().await;
    let watched = |connection: &Connection| {
        SockRef::from(connection.stream.transport().socket().unwrap())
            .keepalive()
            .unwrap()
    };
    let prompt = SockRef::from(connection.stream.transport().socket().unwrap()).tcp_nodelay();
    assert!(prompt.unwrap());
    assert!(is_pending(&mut Box::pin(connection.receive(MAX, LONG))).await);
    assert!(!watched(&connection), "it has not waited for long");
    connection.watch();
    assert!(watched(&connection));
    let socket = SockRef::from(connection.stream.transport().socket().unwrap());
    #[cfg(target_os = "linux")]
    {
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_node_closes_is_not_quiet() {
    let (mut connection, mut node) = asked().await;
    node.write_all(OK).await.unwrap();
    assert!(receive(&mut connection).await.unwrap().reusable);
    drop(node);
    until_not_quiet(&mut connection).await;
    assert!(!connection.is_quiet(), "asking changes nothing");
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_are_not_quiet() {
    let (mut connection, mut node) = pair().await;
    node.write_all(OK).await.unwrap();
    until_not_quiet(&mut connection).await;
    assert!(!connection.is_quiet(), "asking changes nothing");
}

#[tokio::test]
async fn a_close_without_an_answer() {
    let (mut connection, node) = asked().await;
    drop(node);
    let error = receive(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::Closed(None)), "{error:?}");
    assert!(error.request_left() && !error.answer_began());
}

#[tokio::test]
async fn a_reset_without_an_answer() {
    let (mut connection, node) = asked().await;
    reset(node);
    let error = receive(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::Closed(Some(_))), "{error:?}");
}

#[tokio::test]
async fn a_close_and_a_reset_in_the_middle() {
    for end in [drop::<TcpStream>, reset] {
        let (mut connection, mut node) = asked().await;
        begin(&connection, &mut node).await;
        let mut receive = Box::pin(connection.receive(MAX, LONG));
        // The first part is read before the end, so that a reset cannot overtake it.
        assert!(is_pending(&mut receive).await);
        end(node);
        let error = soon(receive).await.unwrap_err();
        assert!(matches!(error, Error::Cut(_)), "{error:?}");
        assert!(error.answer_began() && !connection.is_quiet());
    }
}

#[tokio::test]
async fn surplus_bytes_spoil_the_connection_but_not_the_answer() {
    let (mut connection, mut node) = asked().await;
    node.write_all(&[OK, b"!"].concat()).await.unwrap();
    let answer = receive(&mut connection).await.unwrap();
    assert_eq!(&answer.body[..], b"ok");
    // Whether it came in the same read or behind it, the next request does not go here.
    until_not_quiet(&mut connection).await;
    assert!(!answer.reusable || !connection.is_quiet());
}

#[tokio::test]
async fn an_answer_before_its_request_is_none() {
    let (mut connection, mut node) = pair().await;
    node.write_all(OK).await.unwrap();
    soon(connection.stream.transport().socket().unwrap().readable())
        .await
        .unwrap();
    let sent = soon(connection.send(ASK, LONG)).await;
    assert!(matches!(sent, Err(Error::Invalid(_))), "{sent:?}");
    assert!(!connection.is_quiet());
}

#[tokio::test]
async fn an_answer_before_the_whole_request_is_none() {
    let (mut connection, mut node) = pair().await;
    let large = vec![b'x'; 64 * 1024 * 1024];
    let mut send = Box::pin(connection.send(&large, LONG));
    while !is_pending(&mut send).await {}
    node.write_all(OK).await.unwrap();
    let sent = soon(send).await;
    assert!(matches!(sent, Err(Error::Invalid(_))), "{sent:?}");
    assert!(!connection.is_quiet());
}

#[tokio::test]
async fn bytes_that_are_no_http() {
    let (mut connection, mut node) = asked().await;
    node.write_all(b"<stream:error/>").await.unwrap();
    let error = receive(&mut connection).await.unwrap_err();
    assert_eq!(error.label(), "not_http");
    let again = soon(connection.send(ASK, LONG)).await.unwrap_err();
    assert_eq!(again.label(), "closed");
}

#[tokio::test]
async fn an_answer_byte_by_byte() {
    let (mut connection, mut node) = asked().await;
    let write = async {
        for byte in OK {
            node.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (answer, ()) = tokio::join!(receive(&mut connection), write);
    let answer = answer.unwrap();
    assert_eq!((&answer.body[..], answer.reusable), (&b"ok"[..], true));
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn answers_of_all_sizes_around_one_read() {
    // 16,338 bytes of body and 46 of head fill one read to the byte.
    const FULL: usize = READ - "HTTP/1.1 200 OK\r\nContent-Length: 16338\r\n\r\n".len();
    let (mut connection, mut node) = pair().await;
    for size in [0, FULL - 1, FULL, FULL + 1, READ, 2 * READ, 300_000, MAX] {
        ask(&mut connection, &mut node).await;
        let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        assert_eq!(size == FULL, bytes.len() + size == READ);
        bytes.resize(bytes.len() + size, b'x');
        let (answer, written) = tokio::join!(receive(&mut connection), node.write_all(&bytes));
        written.unwrap();
        let answer = answer.unwrap();
        assert!(answer.reusable && answer.body.len() == size);
        assert!(answer.body.iter().all(|byte| *byte == b'x'));
        assert!(connection.is_quiet(), "after {size} bytes");
    }
}

#[tokio::test]
async fn an_answer_past_the_limit() {
    let (mut connection, mut node) = asked().await;
    node.write_all(OK).await.unwrap();
    let error = soon(connection.receive(1, LONG)).await.unwrap_err();
    assert_eq!(error.label(), "too_large");
}

#[tokio::test]
async fn an_answer_that_begins_must_end() {
    let (mut connection, mut node) = asked().await;
    node.write_all(&OK[..OK.len() - 1]).await.unwrap();
    let error = soon(connection.receive(MAX, SHORT)).await.unwrap_err();
    assert_eq!(error.label(), "stalled");
    assert!(error.answer_began());
}

#[tokio::test]
async fn bytes_that_never_stop_do_not_hold_the_deadline_off() {
    let (mut connection, mut node) = asked().await;
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let flood = tokio::spawn(async move {
        let mut sent = node.write_all(head).await;
        while sent.is_ok() {
            sent = node.write_all(b"1\r\nx\r\n").await;
        }
    });
    let error = soon(connection.receive(usize::MAX, SHORT))
        .await
        .unwrap_err();
    assert_eq!(error.label(), "stalled");
    drop(connection);
    soon(flood).await.unwrap();
}

#[tokio::test]
async fn a_held_poll_has_no_deadline_even_after_an_interim_answer() {
    let (mut connection, mut node) = asked().await;
    let mut receive = Box::pin(connection.receive(MAX, Duration::ZERO));
    assert!(timeout(SHORT, &mut receive).await.is_err());
    node.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        .await
        .unwrap();
    assert!(timeout(SHORT, &mut receive).await.is_err());
    node.write_all(OK).await.unwrap();
    assert_eq!(soon(receive).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_wait_given_up_before_the_first_byte_may_be_resumed() {
    let (mut connection, mut node) = asked().await;
    assert!(is_pending(&mut Box::pin(connection.receive(MAX, LONG))).await);
    assert!(!connection.answer_began());
    node.write_all(OK).await.unwrap();
    assert_eq!(receive(&mut connection).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_wait_given_up_later_spends_the_connection() {
    let (mut connection, mut node) = asked().await;
    begin(&connection, &mut node).await;
    assert!(is_pending(&mut Box::pin(connection.receive(MAX, LONG))).await);
    assert!(connection.answer_began());
    node.write_all(&OK[20..]).await.unwrap();
    assert_eq!(receive(&mut connection).await.unwrap_err().label(), "cut");
    assert!(!connection.is_quiet());
}

#[tokio::test]
async fn an_exchange_is_one_send_and_one_receive() {
    let (mut connection, _node) = pair().await;
    assert_eq!(
        receive(&mut connection).await.unwrap_err().label(),
        "closed"
    );
    soon(connection.send(ASK, LONG)).await.unwrap();
    let second = soon(connection.send(ASK, LONG)).await.unwrap_err();
    assert_eq!(second.label(), "closed");
}

#[tokio::test]
async fn a_node_that_does_not_read() {
    let (mut connection, _node) = pair().await;
    let request = vec![b'x'; 64 * 1024 * 1024];
    let error = soon(connection.send(&request, SHORT)).await.unwrap_err();
    assert!(error.request_left());
    let Error::Send { sent, source } = error else {
        panic!("{error:?}");
    };
    assert!(sent > 0 && sent < request.len());
    assert_eq!(source.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_request_to_a_connection_that_was_reset_does_not_leave() {
    let (mut connection, node) = pair().await;
    reset(node);
    until_not_quiet(&mut connection).await;
    let error = soon(connection.send(ASK, LONG)).await.unwrap_err();
    assert!(matches!(error, Error::Send { sent: 0, .. }), "{error:?}");
    assert!(!error.request_left());
}

#[tokio::test]
async fn a_wait_costs_next_to_nothing() {
    fn size<F: Future + Send>(future: &F) -> usize {
        size_of_val(future)
    }
    let (mut connection, _node) = pair().await;
    let address = connection
        .stream
        .transport()
        .socket()
        .unwrap()
        .peer_addr()
        .unwrap();
    assert!(size_of::<Connection>() <= 64);
    let (candidates, note) = (Candidates::from(&[address][..]), |_, _| ());
    assert!(size(&Connection::open_any(&candidates, LONG, note)) <= 96);
    assert!(size(&connection.send(ASK, LONG)) <= 72);
    assert!(size(&connection.receive(MAX, LONG)) <= 56);
}
