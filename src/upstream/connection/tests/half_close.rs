//! Exchanges that give up their place at the node.

use super::*;

/// Half-closes the exchange that `connection` is in once the node has its request.
async fn released(
    connection: &mut Connection,
    receiving: &mut Receiving,
    node: impl Future<Output = ()>,
) -> Result<Response, Error> {
    assert!(is_pending(&mut answer(connection, receiving)).await);
    receiving.half_close();
    let mut answer = answer(connection, receiving);
    assert!(is_pending(&mut answer).await);
    soon(async { tokio::join!(answer, node).0 }).await
}

fn answer<'a>(
    connection: &'a mut Connection,
    receiving: &'a mut Receiving,
) -> Pin<Box<impl Future<Output = Result<Response, Error>> + 'a>> {
    Box::pin(poll_fn(move |context| {
        connection.poll_receive(context, receiving, (MAX, WantedFields::NONE), LONG)
    }))
}

#[tokio::test]
async fn what_the_node_still_answers_is_received_and_is_the_last() {
    let (mut connection, mut node) = asked().await;
    let mut receiving = connection.begin_receive();
    let answer = released(&mut connection, &mut receiving, async {
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
    let mut receiving = connection.begin_receive();
    let closed = released(&mut connection, &mut receiving, async move { drop(node) });
    let error = closed.await.unwrap_err();
    assert!(matches!(error, Error::Closed(None)), "{error:?}");
    assert!(receiving.is_silent());
}

#[tokio::test]
async fn an_answer_that_has_begun_is_left_to_end() {
    let (mut connection, mut node) = asked().await;
    begin(&connection, &mut node).await;
    let mut receiving = connection.begin_receive();
    let answer = released(&mut connection, &mut receiving, async {
        node.write_all(&OK[20..]).await.unwrap();
    });
    assert!(answer.await.unwrap().reusable);
    assert!(!receiving.is_silent());
    assert!(connection.is_quiet());
}

#[tokio::test]
async fn an_exchange_can_be_given_up_while_no_byte_has_come() {
    let (mut connection, mut node) = asked().await;
    let mut receiving = connection.begin_receive();
    assert!(is_pending(&mut answer(&mut connection, &mut receiving)).await);
    assert!(connection.awaits_first_byte() && !receiving.is_half_closed());
    begin(&connection, &mut node).await;
    assert!(is_pending(&mut answer(&mut connection, &mut receiving)).await);
    assert!(!connection.awaits_first_byte());
    node.write_all(&OK[20..]).await.unwrap();
    let answer = soon(answer(&mut connection, &mut receiving)).await;
    assert_eq!(&answer.unwrap().body[..], b"ok");
}
