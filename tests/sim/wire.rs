//! What nodes and clients of the simulation read from bytes: messages, and the stanzas in them.
//!
//! It shares no code with the product on purpose, so that a mistake of the product is not repeated here.

use bowline::transport::Pipe;
use tokio::io::AsyncReadExt;

/// The numbers of the stanzas in a body.
pub(super) fn stanzas_in(body: &str) -> Vec<u64> {
    let parts = body.split("<m n='").skip(1);
    let number = |part: &str| part.split('\'').next()?.parse().ok();
    parts.filter_map(number).collect()
}

/// What a trace shows of an answer.
pub(super) fn text_of(body: &str) -> String {
    let stanzas = stanzas_in(body);
    if body.contains("type='terminate'") {
        let condition = body.split_once("condition='");
        let condition = condition.and_then(|(_, rest)| rest.split('\'').next());
        return format!("terminate {}", condition.unwrap_or_default());
    }
    if stanzas.is_empty() && body.starts_with("<body") {
        return "empty".to_owned();
    }
    if stanzas.is_empty() {
        return body.to_owned();
    }
    format!("stanzas {stanzas:?}")
}

/// Waits until the other end has closed the connection.
pub(super) async fn gone(connection: &Pipe) {
    std::future::poll_fn(|context| match connection.poll_next(context) {
        std::task::Poll::Ready(false) => std::task::Poll::Ready(()),
        _ => std::task::Poll::Pending,
    })
    .await;
}

/// Reads one message framed by its length: its body, and whether nothing came after it. None at the
/// end. `bytes` holds what was read; it is empty between two messages.
pub(super) async fn read_message(
    connection: &mut Pipe,
    bytes: &mut Vec<u8>,
) -> Option<(Vec<u8>, bool)> {
    bytes.clear();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = std::str::from_utf8(&bytes[..end]).ok()?;
            let start = end + 4;
            let length: usize = field(head, "content-length")?.parse().ok()?;
            if bytes.len() >= start + length {
                let whole = bytes.len() == start + length;
                return Some((bytes[start..start + length].to_vec(), whole));
            }
        }
        if connection.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// The value of a header field.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.split("\r\n").skip(1);
    let mut fields = fields.filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}
