//! How long and how large what comes may be, with the figures of docs/metrics.md where it has them.

use tokio::time::advance;

use super::*;

const CHANGE: &str = "PUT /nodes/t1/state HTTP/1.1\r\nHost: localhost\r\nX-Bowline: 1\r\n";
const LIVE: &[u8] = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_large_head_is_refused() {
    let admin = Admin::start().await;
    let fill = "x".repeat(20_000);
    let request = format!("GET /live HTTP/1.1\r\nHost: localhost\r\nX: {fill}\r\n\r\n");
    assert_eq!(admin.raw(&request).await.status, 431);
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let admin = Admin::start().await;
    admin.verdict(T1, true);
    admin.verdict(T2, true);
    let body = format!("{{\"state\":\"drain\"}}{}", " ".repeat(1024));
    let length = body.len();
    let request = format!("{CHANGE}Content-Length: {length}\r\n\r\n{body}");
    let answer = admin.raw(&request).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("limit"), "{}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_given_up() {
    let admin = Admin::start().await;
    let begun = Instant::now();
    let request = format!("{CHANGE}Content-Length: 17\r\n\r\n{{");
    assert_eq!(admin.raw(&request).await.status, 408);
    let took = begun.elapsed().as_secs();
    assert!((5..10).contains(&took), "{took} s");
}

/// From now on time goes on by [`advance`] alone, until what is returned is dropped: by itself it
/// would run ahead of the sockets.
fn stop_time() -> std::sync::mpsc::Sender<()> {
    let (hold, held) = std::sync::mpsc::channel();
    tokio::task::spawn_blocking(move || held.recv());
    hold
}

#[tokio::test(start_paused = true)]
async fn a_connection_lives_for_five_minutes() {
    let admin = Admin::start().await;
    let mut stream = admin.connect().await;
    let _hold = stop_time();
    let begun = Instant::now();
    let mut answer = [0; 4096];
    while begun.elapsed() < Duration::from_secs(400) {
        if stream.write_all(LIVE).await.is_err() || stream.read(&mut answer).await.unwrap_or(0) == 0
        {
            break;
        }
        advance(Duration::from_secs(5)).await;
    }
    let took = begun.elapsed().as_secs();
    assert!((300..=305).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn who_reads_no_answer_is_cut_off() {
    const ASKED: usize = 1000;
    let admin = Admin::start().await;
    let mut stream = admin.connect().await;
    let _hold = stop_time();
    // Answers of 57 MB: more than the sockets' buffers take.
    let pages = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(ASKED);
    stream.write_all(pages.as_bytes()).await.unwrap();
    let mut chunk = vec![0; 1 << 20];
    let mut size = stream.read(&mut chunk).await.unwrap();
    advance(Duration::from_secs(301)).await;
    advance(Duration::from_secs(2)).await;
    while size < ASKED * page::PAGE.len() {
        // What is cut off may be reset.
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => size += count,
        }
    }
    panic!("all of it came");
}

#[tokio::test(start_paused = true)]
async fn a_stream_lives_on() {
    let admin = Admin::start().await;
    let mut stream = admin.connect().await;
    let _hold = stop_time();
    let request = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let begun = Instant::now();
    let mut chunk = [0; 65_536];
    while begun.elapsed() < 2 * MAX_AGE + Duration::from_secs(2) {
        let count = stream.read(&mut chunk).await.unwrap();
        assert_ne!(count, 0, "ended after {:?}", begun.elapsed());
        advance(Duration::from_secs(1)).await;
    }
}
