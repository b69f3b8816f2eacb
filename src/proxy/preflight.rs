//! A preflight (`OPTIONS`) that a node answers, with `cors.owner: pass`.
//!
//! It belongs to no session, so any node answers it: the first in placement order that can. A node that
//! does not answer is left for the next one, and counts as a node that failed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::attempt;
use super::exchange::Exchange;
use super::reject::Cause;
use super::request_record::RequestRecord;
use super::shared::Proxy;
use super::termination_state::Phase;
use crate::cluster::NodeId;
use crate::upstream::{Error, Preflight, Priority, Response};

/// How long one node may take. Nodes answer a preflight at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many nodes are asked.
const MOST_NODES: usize = 3;

impl Proxy {
    /// Begins to ask nodes.
    pub fn preflight(
        self: &Arc<Self>,
        preflight: &Preflight<'_>,
        client: IpAddr,
        record: RequestRecord,
    ) -> Exchange {
        let (proxy, bytes) = (Arc::clone(self), preflight.write());
        Exchange::new(async move {
            record.enters(Phase::Queue);
            let answer = proxy.ask_nodes(&bytes, client, &record).await;
            record.answer(answer)
        })
    }

    async fn ask_nodes(
        self: &Arc<Self>,
        bytes: &[u8],
        client: IpAddr,
        record: &RequestRecord,
    ) -> Answer {
        let mut tried = Vec::new();
        while tried.len() < MOST_NODES {
            let Some(id) = self.cluster.place(client, &tried) else {
                break;
            };
            tried.push(id);
            record.goes_to(id);
            match self.ask(id, bytes, record).await {
                Ok(response) => {
                    return Answer {
                        status: response.status,
                        fields: response.fields,
                        ..Answer::ok(Bytes::new())
                    };
                }
                Err(error) if error.is_local() => return Answer::reject(Cause::Overloaded, false),
                Err(_) => {}
            }
        }
        Answer::reject(Cause::NoNode, false)
    }

    async fn ask(
        self: &Arc<Self>,
        id: NodeId,
        bytes: &[u8],
        record: &RequestRecord,
    ) -> Result<Response, Error> {
        let node = self.cluster.node(id);
        let until = Instant::now() + PATIENCE;
        record.enters(Phase::Connect);
        let mut connection = self
            .open(node, None, record.client(), Priority::Creation, until)
            .await?;
        let stay = record.at_node(Instant::now());
        let live = self.live();
        let exchange = async {
            connection.send(bytes, PATIENCE).await?;
            connection
                .receive_for(self.max_answer(), &live.wanted, PATIENCE)
                .await
        };
        let answered = timeout_at(until, exchange).await;
        stay.end(Instant::now());
        record.enters(Phase::Answer);
        match answered {
            Ok(Err(error)) => {
                attempt::exchange_failed(node, &error);
                Err(error)
            }
            Ok(answered) => answered,
            Err(_) => {
                attempt::overdue(node);
                Err(Error::Stalled)
            }
        }
    }
}
