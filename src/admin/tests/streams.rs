//! The stream of events: what comes, and what becomes of a listener that does not take it.

use super::*;

/// A listener's connection, as text that has come so far.
struct Listener {
    stream: TcpStream,
    text: String,
}

impl Listener {
    async fn of(admin: &Admin, headers: &str) -> Self {
        let mut stream = admin.connect().await;
        let request = format!("GET /stream HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let text = String::new();
        Self { stream, text }
    }

    /// Reads until `wanted` has come.
    async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let mut chunk = [0; 4096];
            let come = timeout(Duration::from_secs(20), self.stream.read(&mut chunk)).await;
            let count = come.expect("in time").unwrap();
            assert_ne!(count, 0, "ended before {wanted}: {}", self.text);
            self.text
                .push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    }
}

#[tokio::test]
async fn a_listener_gets_snapshots_and_events() {
    let admin = Admin::start().await;
    let mut listener = Listener::of(&admin, "").await;
    listener.until("data: {\"schema\":1,").await;
    assert!(
        listener
            .text
            .contains("content-type: text/event-stream\r\n")
    );
    assert!(
        listener
            .text
            .contains("event: event\ndata: {\"id\":1,\"kind\":\"start\"")
    );
    listener.until("event: health").await;
    listener.text.clear();
    admin.verdict(T1, true);
    listener.until("\"verdict\":\"up\"").await;
    // The state comes with the event, and not with the next tick.
    let (before, health) = listener.text.split_once("event: health").unwrap();
    assert!(
        before.ends_with("\"when\":\"2001-09-09T01:46:40Z\"}\n\n"),
        "{before}"
    );
    assert!(before.contains("\"text\":\"t1 is up\""), "{before}");
    assert!(health.contains("\"verdict\":\"up\""), "{health}");
}

#[tokio::test]
async fn who_comes_back_gets_what_it_missed() {
    let admin = Admin::start().await;
    admin.verdict(T1, true);
    admin.verdict(T2, true);
    let mark = admin.state.mark();
    let mut listener = Listener::of(&admin, &format!("Last-Event-ID: {mark}-2\r\n")).await;
    listener.until(&format!("id: {mark}-3\n")).await;
    listener.until("event: health\n").await;
    assert!(!listener.text.contains("-2\n"), "{}", listener.text);
    let before = mark - 1;
    for foreign in [
        format!("{before}-2"),
        format!("{mark}-900"),
        "2".into(),
        "x-y".into(),
    ] {
        let mut listener = Listener::of(&admin, &format!("Last-Event-ID: {foreign}\r\n")).await;
        listener.until(&format!("id: {mark}-1\n")).await;
    }
}

#[tokio::test]
async fn there_are_only_so_many_listeners() {
    let admin = Admin::start().await;
    let mut listeners = vec![];
    for _ in 0..stream::MOST_LISTENERS {
        let mut listener = Listener::of(&admin, "").await;
        listener.until("event: health").await;
        listeners.push(listener);
    }
    assert_eq!(admin.get("/stream").await.status, 503);
    listeners.pop();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut one_more = Listener::of(&admin, "").await;
        one_more.until("\r\n\r\n").await;
        if one_more.text.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < deadline, "its place did not become free");
        sleep(Duration::from_millis(5)).await;
    }
    let head = admin.ask("HEAD", "/stream").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn a_listener_that_takes_nothing_is_cut_off() {
    let admin = Admin::start().await;
    let mut listener = Listener::of(&admin, "").await;
    listener.until("event: health").await;
    assert_eq!(
        admin.state.listeners.available_permits(),
        stream::MOST_LISTENERS - 1
    );
    // More than the sockets' buffers take.
    let words = "x".repeat(1 << 20);
    let deadline = Instant::now() + Duration::from_secs(20);
    while admin.state.listeners.available_permits() < stream::MOST_LISTENERS {
        assert!(Instant::now() < deadline, "it was not cut off");
        let event = Event::new(EventKind::Stop, SystemTime::UNIX_EPOCH, words.clone());
        admin.state.cluster.events.add(event);
        sleep(Duration::from_millis(2)).await;
    }
    // Its connection is gone as well, though nobody has read what came: the state is left to the
    // listener and to this test.
    while Arc::strong_count(&admin.state) > 2 {
        assert!(Instant::now() < deadline, "its connection goes on");
        sleep(Duration::from_millis(2)).await;
    }
    let mut rest = vec![];
    // Cut off in the middle: an error or an end, after what was in the buffers.
    let _ = timeout(
        Duration::from_secs(20),
        listener.stream.read_to_end(&mut rest),
    )
    .await
    .expect("the connection is closed");
}
