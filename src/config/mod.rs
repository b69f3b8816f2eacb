//! The configuration: one YAML file in, checked settings out.
//!
//! Owns what a valid configuration is and the words that say what is wrong with an invalid one.
//! Opens no socket, and reads no file but the one it is given.
//!
//! ```text
//! text ── tree ──> untyped tree ── read + sections ──> Settings
//!                       └── faults ── tree::offset, excerpt ──> ConfigErrors
//! ```

mod admin_listener;
mod bosh;
mod check;
mod defaults;
mod destinations;
mod error;
mod excerpt;
mod faults;
mod hints;
mod keys;
mod listen;
mod node_address;
mod node_opening;
mod node_source;
mod nodes;
mod parse;
mod read;
mod reload;
mod schema;
mod sections;
mod settings;
mod show;
mod tls;
mod tree;
mod units;
mod web;
mod websocket;

pub use admin_listener::{ADMIN_TOKEN, Admin, AdminToken, Role};
pub(crate) use error::one_line;
pub use error::{ConfigError, ConfigErrors};
pub use keys::keys;
pub use node_address::{host_of, unix_path};
pub use node_source::{Discovery, DnsDiscovery, DnsRecord};
pub use parse::{MAX_FILE, load, load_nodes, parse};
pub use reload::Reload;
pub use schema::schema;
pub use settings::*;
pub use show::show;
pub(crate) use units::parse_duration;
