//! The list of nodes for clients that choose a node themselves: as JSON, and as the links of
//! XEP-0156.
//!
//! Lists the nodes that have a public URL and would get a new session now. A document is kept as
//! bytes until the state of a listed node changes, so that a flood of requests builds nothing.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quick_xml::escape::escape;
use serde::Serialize;

use crate::cluster::{Cluster, Node, NodeId, Share};
use crate::config::{HOST_META_PATHS, Settings};
use crate::proxy::Answer;

/// The relation of a BOSH service (XEP-0156 §3).
const RELATION: &str = "urn:xmpp:alt-connections:xbosh";
const JSON: Bytes = Bytes::from_static(b"application/json");
const XRD: Bytes = Bytes::from_static(b"application/xrd+xml; charset=utf-8");

/// In how many steps the share of a node that came back grows in the list.
const STEPS: u32 = 10;

/// One of the documents that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    /// Names, URLs and weights, in JSON.
    Nodes,
    /// The links of XEP-0156, in XML.
    HostMeta,
    /// The same in JSON.
    HostMetaJson,
}

/// The list, and the documents that it was last written in.
#[derive(Debug)]
pub(super) struct NodeList {
    path: String,
    host_meta: bool,
    cache: Bytes,
    written: Mutex<Written>,
}

/// A node with a public URL, and its weight as [`weight`] counts it.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    node: NodeId,
    url: Arc<str>,
    weight: u32,
}

/// The nodes with a public URL, in the order of the configuration.
fn entries(cluster: &Cluster) -> Vec<Entry> {
    let nodes = cluster.nodes();
    let entry = |node: &Arc<Node>| {
        Some(Entry {
            node: node.id,
            url: node.public_url()?,
            weight: weight(node),
        })
    };
    nodes.members().iter().filter_map(entry).collect()
}

/// The documents, and what they were made of.
#[derive(Debug, Default)]
struct Written {
    entries: Vec<Entry>,
    nodes: Bytes,
    host_meta: Bytes,
    host_meta_json: Bytes,
}

#[derive(Serialize)]
struct Nodes<'a> {
    nodes: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    public_url: &'a str,
    weight: f64,
}

#[derive(Serialize)]
struct Links<'a> {
    links: Vec<Link<'a>>,
}

#[derive(Serialize)]
struct Link<'a> {
    rel: &'static str,
    href: &'a str,
}

/// What a node's share of new clients is, in parts of 1 / [`STEPS`]; 0 if it gets none.
fn weight(node: &Node) -> u32 {
    if !node.takes_new() {
        return 0;
    }
    let share = u32::from(node.share().0) * STEPS;
    let steps = share.div_ceil(u32::from(Share::WHOLE.0));
    node.weight() * steps.max(1)
}

impl NodeList {
    /// The list of the settings, if they have one.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let list = settings.node_list.as_ref()?;
        let seconds = list.max_age.as_secs();
        Some(Self {
            path: list.path.clone(),
            host_meta: list.host_meta,
            cache: format!("max-age={seconds}").into(),
            written: Mutex::default(),
        })
    }

    /// The document that a path names.
    pub(super) fn find(&self, path: &str) -> Option<Document> {
        let [xml, json] = HOST_META_PATHS;
        match path {
            _ if path == self.path => Some(Document::Nodes),
            _ if !self.host_meta => None,
            _ if path == xml => Some(Document::HostMeta),
            _ if path == json => Some(Document::HostMetaJson),
            _ => None,
        }
    }

    /// A document as it is now, and the `Cache-Control` that goes with it.
    pub(super) fn answer(&self, cluster: &Cluster, document: Document) -> (Answer, Bytes) {
        // Read once: the documents and what they are compared with must be of the same moment.
        let now = entries(cluster);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.nodes.is_empty() || now != written.entries {
            *written = write(cluster, now);
        }
        let (body, content_type) = match document {
            Document::Nodes => (&written.nodes, JSON),
            Document::HostMeta => (&written.host_meta, XRD),
            Document::HostMetaJson => (&written.host_meta_json, JSON),
        };
        let answer = Answer {
            content_type: Some(content_type),
            ..Answer::ok(body.clone())
        };
        // An empty list that is kept would keep clients from the first node that comes back.
        let is_empty = written.entries.iter().all(|entry| entry.weight == 0);
        let cache = if is_empty {
            Bytes::from_static(b"no-store")
        } else {
            self.cache.clone()
        };
        (answer, cache)
    }
}

fn write(cluster: &Cluster, entries: Vec<Entry>) -> Written {
    let listed = || entries.iter().filter(|entry| entry.weight > 0);
    let nodes = listed().map(|entry| Listed {
        name: &cluster.node(entry.node).name,
        public_url: &entry.url,
        weight: f64::from(entry.weight) / f64::from(STEPS),
    });
    let links = listed().map(|entry| Link {
        rel: RELATION,
        href: &entry.url,
    });
    let mut xml = "<?xml version='1.0' encoding='utf-8'?>\n\
                   <XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\n"
        .to_owned();
    for entry in listed() {
        xml = xml + "<Link rel='" + RELATION + "' href='" + &escape(&*entry.url) + "'/>\n";
    }
    xml += "</XRD>\n";
    let nodes = json(&Nodes {
        nodes: nodes.collect(),
    });
    let host_meta_json = json(&Links {
        links: links.collect(),
    });
    Written {
        nodes,
        host_meta: xml.into(),
        host_meta_json,
        entries,
    }
}

fn json(value: &impl Serialize) -> Bytes {
    let text = serde_json::to_vec(value);
    text.expect("text and finite numbers are JSON").into()
}
