//! What becomes of single sessions on their way from the old process to the new one: kept answers, rids that
//! nodes have read, and requests whose clients went away.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::takeover::STEP;
use crate::handover::{Channel, HandoverError, Kind};
use crate::proxy::Proxy;
use crate::sessions::{Change, Session};
use crate::snapshot::changes::{self, News, Record};
use crate::snapshot::{self, Moment};

/// A frame is sent when it has this many bytes.
const ENOUGH: usize = 256 * 1024;

/// Sends the kept answers of all sessions, and the requests whose clients went away, as far as there is time.
pub(super) async fn send_answers(
    channel: &mut Channel,
    proxy: &Proxy,
    within: Duration,
) -> Result<(), HandoverError> {
    let Some(key) = proxy.sessions.answers_key() else {
        return Ok(());
    };
    channel.send(Kind::Key, key, None, STEP).await?;
    let last = Instant::now() + within;
    let mut sessions = Vec::new();
    proxy
        .sessions
        .each(|session| sessions.push(Arc::clone(session)));
    let mut bytes = Vec::new();
    for session in sessions {
        add_answers(proxy, &session, &mut bytes);
        if bytes.len() >= ENOUGH {
            channel.send(Kind::Changes, &bytes, None, STEP).await?;
            bytes.clear();
            if Instant::now() > last {
                return Ok(());
            }
        }
    }
    channel.send(Kind::Changes, &bytes, None, STEP).await
}

fn add_answers(proxy: &Proxy, session: &Arc<Session>, bytes: &mut Vec<u8>) {
    let sid = session.sid();
    for (rid, hash, body) in proxy.sessions.kept_answers(session) {
        let body = &body[..];
        let news = News::Kept { hash, body };
        changes::write(bytes, &Record { sid, rid, news });
    }
    let now = proxy.now();
    for (rid, since, until) in session.away() {
        let (ago, left) = (now.since(since), until.since(now));
        let news = News::Away { ago, left };
        changes::write(bytes, &Record { sid, rid, news });
    }
}

/// Sends changes.
pub(super) async fn send_changes(
    channel: &mut Channel,
    proxy: &Proxy,
    changes: &[Change],
) -> Result<(), HandoverError> {
    let (mut made, mut bytes) = (Vec::new(), Vec::new());
    for change in changes {
        let (session, rid, news) = match change {
            Change::Made(session) => {
                made.push(Arc::clone(session));
                continue;
            }
            Change::Sent(session, rid) => (session, *rid, News::Sent),
            Change::Kept(session, (rid, hash), body) => {
                let (hash, body) = (*hash, &body[..]);
                (session, *rid, News::Kept { hash, body })
            }
        };
        let sid = session.sid();
        changes::write(&mut bytes, &Record { sid, rid, news });
    }
    if !made.is_empty() {
        let times = (proxy.now(), SystemTime::now());
        let (pins, _) = snapshot::encode_some(&proxy.cluster, &made, Moment::Ending, times);
        channel.send(Kind::Late, &pins, None, STEP).await?;
    }
    if !bytes.is_empty() {
        channel.send(Kind::Changes, &bytes, None, STEP).await?;
    }
    Ok(())
}

/// Takes changes in.
pub(super) fn take_changes(proxy: &Proxy, bytes: &[u8]) {
    for Record { sid, rid, news } in changes::read(bytes) {
        match news {
            News::Sent => {
                if let Some(session) = proxy.sessions.find(sid) {
                    session.sent_elsewhere(rid);
                }
            }
            News::Away { ago, left } => {
                if let Some(session) = proxy.sessions.find(sid) {
                    let now = proxy.now();
                    session.went_away_elsewhere((rid, now.before(ago), now + left));
                }
            }
            News::Kept { hash, body } => proxy.sessions.keep_passed(sid, (rid, hash), body),
        }
    }
}
