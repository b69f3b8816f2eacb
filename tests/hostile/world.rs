//! A balancer in front of recording nodes, and the session of another client, which must never
//! notice anything: the canary.

use bowline::config::{Settings, parse};
use std::net::SocketAddr;

use crate::client::{Answer, Wire};
use crate::corpus::{creation, poll};
use crate::invariants::Expected;
use crate::node::{Node, mark};
use crate::support::balancer::Balancer;

/// A balancer, its nodes, and the canary.
pub(crate) struct World {
    pub(crate) balancer: Balancer,
    pub(crate) nodes: Vec<Node>,
    pub(crate) canary: Session,
    canary_wire: Wire,
}

/// A session, with the rid of its next request.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) sid: String,
    pub(crate) rid: u64,
}

/// Settings with short times for what a client may take, and probes only where something is amiss.
pub(crate) fn settings(nodes: &[Node]) -> Settings {
    let nodes: String = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| format!("  - {{ name: t{}, address: '{}' }}\n", at + 1, node.address))
        .collect();
    let text = format!(
        "listen: [{{ address: 127.0.0.1:0 }}]\nnodes:\n{nodes}admin: {{ address: 127.0.0.1:0 }}\n\
         threads: 1\ntimeouts: {{ head: 300ms, body: 300ms }}\nhealth: {{ interval: 1h }}\n"
    );
    parse(&text, "the test's").unwrap()
}

impl World {
    pub(crate) async fn new(nodes: usize) -> Self {
        let mut started = Vec::new();
        for _ in 0..nodes {
            started.push(Node::start().await);
        }
        let settings = settings(&started);
        Self::with(started, &settings).await
    }

    /// One node, and a listener that takes HTTP/2 as well.
    pub(crate) async fn with_http2() -> Self {
        let nodes = vec![Node::start().await];
        let mut settings = settings(&nodes);
        settings.listen[0].h2c = true;
        Self::with(nodes, &settings).await
    }

    pub(crate) async fn with(nodes: Vec<Node>, settings: &Settings) -> Self {
        let balancer = Balancer::start(settings).await;
        let mut canary_wire = Wire::to(balancer.address()).await;
        let canary = create(&mut canary_wire).await.unwrap();
        Self {
            balancer,
            nodes,
            canary,
            canary_wire,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// A new session, over a connection of its own.
    pub(crate) async fn session(&self) -> Result<(Session, Wire), String> {
        let mut wire = Wire::to(self.address()).await;
        let session = create(&mut wire).await?;
        Ok((session, wire))
    }

    /// The canary's next request, on its own connection or on that of somebody else; it must get
    /// its own answer.
    pub(crate) async fn canary(
        &mut self,
        other: Option<&mut Wire>,
        expected: &mut Expected,
    ) -> Result<(), String> {
        let wire = other.unwrap_or(&mut self.canary_wire);
        let rid = self.canary.rid;
        let answered = self.canary.poll(wire).await;
        if answered.is_ok() {
            expected.add(Some(&self.canary.sid), rid);
            return Ok(());
        }
        // The next case gets a canary of its own.
        self.canary_wire = Wire::to(self.address()).await;
        self.canary = create(&mut self.canary_wire).await?;
        answered
    }

    /// The node of the canary.
    pub(crate) fn home(&self) -> usize {
        let knows = |node: &Node| node.knows(&self.canary.sid);
        self.nodes.iter().position(knows).unwrap()
    }

    /// Everything that reached the nodes and was not looked at yet.
    pub(crate) fn judge(&self, expected: Expected) -> Result<(), String> {
        let [node] = &self.nodes[..] else {
            return Err("judged with one node".to_owned());
        };
        expected.judge(node.address, &node.news())
    }
}

/// Creates a session.
pub(crate) async fn create(wire: &mut Wire) -> Result<Session, String> {
    let rid = fastrand::u64(1_000..1_000_000_000);
    let answer = wire.post(&creation(rid)).await?;
    let sid = answer
        .attribute("sid")
        .ok_or_else(|| format!("no session: {answer:?}"))?;
    Ok(Session {
        sid: sid.to_owned(),
        rid: rid + 1,
    })
}

impl Session {
    /// The next poll, which must get its own answer.
    pub(crate) async fn poll(&mut self, wire: &mut Wire) -> Result<(), String> {
        let rid = self.rid;
        self.rid += 1;
        let answer = wire.post(&poll(&self.sid, rid)).await?;
        is_for(&answer, Some(&self.sid), rid)
    }
}

/// The answer is the node's to this request.
pub(crate) fn is_for(answer: &Answer, sid: Option<&str>, rid: u64) -> Result<(), String> {
    let expected = mark(sid, &rid.to_string());
    if answer.status == 200 && answer.attribute("for") == Some(&expected) {
        Ok(())
    } else {
        Err(format!("not the answer to {expected}: {answer:?}"))
    }
}

/// A wrapper of the balancer's own, as every reject has to be.
pub(crate) fn is_reject(answer: &Answer, status: u16) -> Result<(), String> {
    let own = answer.status == status
        && answer
            .body
            .starts_with("<body xmlns='http://jabber.org/protocol/httpbind' ")
        && answer.attribute("type") == Some("terminate")
        && answer.attribute("sid").is_none()
        && answer.field("content-type") == Some("text/xml; charset=utf-8")
        && answer.field("access-control-allow-origin") == Some("*");
    if own {
        Ok(())
    } else {
        Err(format!("no reject with {status}: {answer:?}"))
    }
}
