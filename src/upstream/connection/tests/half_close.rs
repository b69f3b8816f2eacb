//! Exchanges that give up their place at the node.

use super::*;

/// Half-closes the exchange that `connection` is in once the node has its request.
async fn released(
    connection: &mut Connection,
    half_close: &HalfClose,
    node: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let mut answer =
        Box::pin(connection.receive_or_release(MAX, LONG, half_close, |_| Poll::Pending));
    assert!(is_pending(&mut answer).await);
    half_close.ask();
    assert!(is_pending(&mut answer).await);
    soon(async { tokio::join!(answer, node).0 }).await
}

#[tokio::test]
async fn what_the_node_still_answers_is_received_and_is_the_last() {
    let (mut connection, mut node) = asked().await;
    let half_close = HalfClose::default();
    let answer = released(&mut connection, &half_close, async {
        assert_eq!(node.read(&mut [0; 8]).await.unwrap(), 0, "it sees the end");
        node.write_all(&OK[..20]).await.unwrap();
        tokio::task::yield_now().await;
        node.write_all(&OK[20..]).await.unwrap();
    });
    let answer = answer.await.unwrap();
    assert_eq!(&answer.body[..], b"ok");
    assert!(!answer.reusable && !connection.is_quiet());
}

#[tokio::test]
async fn a_node_that_closes_has_said_nothing() {
    let (mut connection, node) = asked().await;
    let half_close = HalfClose::default();
    let closed = released(&mut connection, &half_close, async move { drop(node) });
    let error = closed.await.unwrap_err();
    assert!(matches!(error, Error::Closed(None)), "{error:?}");
    assert!(half_close.is_silent());
}

#[tokio::test]
async fn an_answer_that_has_begun_is_left_to_end() {
    let (mut connection, mut node) = asked().await;
    begin(&connection, &mut node).await;
    let half_close = HalfClose::default();
    let answer = released(&mut connection, &half_close, async {
        node.write_all(&OK[20..]).await.unwrap();
    });
    assert!(answer.await.unwrap().reusable);
    assert!(!half_close.is_silent());
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn an_exchange_is_given_up_only_while_no_byte_has_come() {
    let half_close = HalfClose::default();
    let (mut connection, _node) = asked().await;
    let answer = connection.receive_or_release(MAX, LONG, &half_close, |_| Poll::Ready(()));
    let error = soon(answer).await.unwrap_err();
    assert!(matches!(error, Error::Closed(None)), "{error:?}");
    assert!(!connection.is_quiet());
    let (mut connection, mut node) = asked().await;
    begin(&connection, &mut node).await;
    let answer = connection.receive_or_release(MAX, LONG, &half_close, |_| Poll::Ready(()));
    let mut answer = Box::pin(answer);
    assert!(is_pending(&mut answer).await);
    node.write_all(&OK[20..]).await.unwrap();
    assert_eq!(&soon(answer).await.unwrap().body[..], b"ok");
}
