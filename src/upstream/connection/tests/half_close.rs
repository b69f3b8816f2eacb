//! Exchanges that give up their place at the node.

use super::*;

/// Half-closes the exchange that `connection` is in once the node has its request.
async fn released(
    connection: &mut Connection,
    control: &WaitControl,
    node: impl Future<Output = ()>,
) -> Result<Response, Error> {
    let mut answer = Box::pin(connection.receive_controlled(MAX, LONG, control, |_| Poll::Pending));
    assert!(is_pending(&mut answer).await);
    control.half_close();
    assert!(is_pending(&mut answer).await);
    soon(async { tokio::join!(answer, node).0 }).await
}

#[tokio::test]
async fn what_the_node_still_answers_is_received_and_is_the_last() {
    let (mut connection, mut node) = asked().await;
    let control = WaitControl::default();
    let answer = released(&mut connection, &control, async {
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
    let control = WaitControl::default();
    let closed = released(&mut connection, &control, async move { drop(node) });
    let error = closed.await.unwrap_err();
    assert!(matches!(error, Error::Closed(None)), "{error:?}");
    assert!(control.is_silent());
}

#[tokio::test]
async fn an_answer_that_has_begun_is_left_to_end() {
    let (mut connection, mut node) = asked().await;
    begin(&connection, &mut node).await;
    let control = WaitControl::default();
    let answer = released(&mut connection, &control, async {
        node.write_all(&OK[20..]).await.unwrap();
    });
    assert!(answer.await.unwrap().reusable);
    assert!(!control.is_silent());
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn an_exchange_is_given_up_only_while_no_byte_has_come() {
    let control = WaitControl::default();
    let (mut connection, _node) = asked().await;
    let answer = connection.receive_controlled(MAX, LONG, &control, |_| Poll::Ready(()));
    let error = soon(answer).await.unwrap_err();
    assert!(matches!(error, Error::Closed(None)), "{error:?}");
    assert!(!connection.is_quiet());
    let (mut connection, mut node) = asked().await;
    begin(&connection, &mut node).await;
    let answer = connection.receive_controlled(MAX, LONG, &control, |_| Poll::Ready(()));
    let mut answer = Box::pin(answer);
    assert!(is_pending(&mut answer).await);
    node.write_all(&OK[20..]).await.unwrap();
    assert_eq!(&soon(answer).await.unwrap().body[..], b"ok");
}
