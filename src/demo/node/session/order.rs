//! Requests in rid order, as Prosody and ejabberd have them: early ones wait, repeated ones get the
//! answer that was kept, wrong ones are refused.

use tokio::time::Instant;

use super::{Act, Fate, REQUESTS, Reply, Request, Session};

impl Session {
    pub(super) fn take_in_order(
        &mut self,
        request: Request,
        now: Instant,
        acts: &mut Vec<Act>,
    ) -> Fate {
        let (Some(rid), Some(last)) = (request.rid, self.last) else {
            return self.refuse(&request, now, acts);
        };
        if rid <= last {
            return self.repeat(rid, request, now, acts);
        }
        if rid > last.saturating_add(REQUESTS) {
            return self.refuse(&request, now, acts);
        }
        self.early.insert(rid, request);
        let mut next = last + 1;
        while let Some(request) = self.early.remove(&next) {
            self.last = Some(next);
            self.serve(&request, true, now, acts);
            next += 1;
        }
        Fate::Served
    }

    fn repeat(&mut self, rid: u64, request: Request, now: Instant, acts: &mut Vec<Act>) -> Fate {
        if let Some((_, reply)) = self.kept.iter().find(|(known, _)| *known == rid) {
            let reply = reply.clone();
            acts.push(Act::Answer {
                line: request.line,
                manner: request.manner,
                reply,
            });
            return Fate::Repeated;
        }
        let Some(held) = self.held.iter_mut().find(|held| held.rid == Some(rid)) else {
            // The connection of the first one is gone. Prosody holds its latest request again.
            if self.last == Some(rid) && !self.rules.wrong_rid_ends {
                return self.serve(&request, false, now, acts);
            }
            return self.refuse(&request, now, acts);
        };
        let line = std::mem::replace(&mut held.line, request.line);
        let manner = std::mem::replace(&mut held.manner, request.manner);
        if line != held.line {
            acts.push(Act::Answer {
                line,
                manner,
                reply: Reply::default(),
            });
        }
        Fate::Repeated
    }

    fn refuse(&mut self, request: &Request, now: Instant, acts: &mut Vec<Act>) -> Fate {
        let condition = Some("item-not-found");
        let reply = Reply {
            terminate: true,
            condition,
            ..Reply::default()
        };
        let manner = request.manner.clone();
        acts.push(Act::Answer {
            line: request.line,
            manner,
            reply,
        });
        if self.rules.wrong_rid_ends {
            self.end(now, None, acts);
        }
        Fate::Refused
    }
}
