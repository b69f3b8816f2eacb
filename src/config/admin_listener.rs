//! The section `admin`: where the admin listener is, and which tokens open it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::check;
use super::read::{Section, Value};
use super::sections::{MOST_ENTRIES, file, socket_address, texts};
use super::settings::Listen;

/// The admin listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Address and port, loopback only unless there is a token; port 0 takes a free one.
    pub address: SocketAddr,
    /// The file with the token of the name `admin`, which may do everything.
    pub token_file: Option<PathBuf>,
    /// Tokens of people and programs, at most 256, names unique. Without any token, everyone who reaches
    /// the address may do everything.
    pub tokens: Vec<AdminToken>,
    /// Names by which browsers may call the listener, besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// Another address, which serves `/live`, `/ready` and `/metrics` to everyone; none by default.
    /// Port 0 takes a free one.
    pub probes: Option<SocketAddr>,
}

/// A named token.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminToken {
    /// Its name in logs and events: `[A-Za-z0-9._-]`, 1 to 64 characters.
    pub name: String,
    /// The file with the token.
    pub file: PathBuf,
    /// What it opens; [`Role::Read`] by default.
    pub role: Role,
}

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything that changes nothing and shows no whole sid.
    Read,
    /// Everything.
    Operate,
}

/// The name of the token in [`Admin::token_file`].
pub const ADMIN_TOKEN: &str = "admin";

pub(super) const ROLES: [(&str, Role); 2] = [("read", Role::Read), ("operate", Role::Operate)];

/// The admin listener beside the client listeners `listen`; none if it is switched off.
pub(super) fn admin(value: Option<Value<'_>>, listen: &[Listen]) -> Option<Admin> {
    let default = Admin::default();
    let Some(value) = value else {
        return Some(default);
    };
    if value.is_off() {
        return None;
    }
    if value.is_null() {
        return value.refuse("has no value: give an `address`, or `off`");
    }
    let section = value.section_or("a mapping or `off`")?;
    let token_file = section.get("token_file");
    let token_list = section.get("tokens");
    let protected = token_file.is_some() || token_list.is_some();
    let token_file = token_file.and_then(|value| file(&value));
    let hosts = section.get("hosts");
    let address = section.get("address");
    let address = address.and_then(|value| admin_address(&value, protected, listen));
    let address = address.unwrap_or(default.address);
    Some(Admin {
        address,
        tokens: token_list.map_or(default.tokens, |value| tokens(&value, token_file.is_some())),
        token_file,
        hosts: hosts.map_or(default.hosts, |value| {
            texts(&value, 0..=MOST_ENTRIES, check::host_name)
        }),
        probes: probes(&section, address, listen),
    })
}

/// The tokens of a list. The name `admin` is taken if there is a `token_file`.
fn tokens(value: &Value<'_>, has_file: bool) -> Vec<AdminToken> {
    let mut tokens: Vec<AdminToken> = Vec::new();
    for item in value.list(1..=MOST_ENTRIES) {
        let Some(section) = item.section() else {
            continue;
        };
        let (name, path) = (section.need("name"), section.need("file"));
        let role = section.choice("role", Role::Read, &ROLES);
        let path = path.and_then(|value| file(&value));
        let name = name.and_then(|value| token_name(&value, has_file, &tokens));
        if let (Some(name), Some(file)) = (name, path) {
            tokens.push(AdminToken { name, file, role });
        }
    }
    tokens
}

fn token_name(value: &Value<'_>, has_file: bool, others: &[AdminToken]) -> Option<String> {
    let name = value.text()?;
    if !check::is_node_name(name) {
        return value.must_be("1 to 64 of the characters A-Z a-z 0-9 . _ -");
    }
    if has_file && name == ADMIN_TOKEN {
        return value.refuse(format!("`{name}` is the name of the token in `token_file`"));
    }
    if others.iter().any(|other| other.name == name) {
        return value.refuse(format!("two tokens have the name `{name}`"));
    }
    Some(name.to_owned())
}

/// Where probes are answered.
fn probes(section: &Section<'_>, admin: SocketAddr, listen: &[Listen]) -> Option<SocketAddr> {
    let value = section.get("probes")?;
    if value.is_null() {
        return value.refuse("has no value: give an `address`");
    }
    let value = value.section()?.need("address")?;
    let address = socket_address(&value)?;
    if address == admin && address.port() != 0 {
        return value.refuse(format!("{address} is already `admin.address`"));
    }
    not_of_clients(&value, address, listen)
}

fn admin_address(value: &Value<'_>, protected: bool, listen: &[Listen]) -> Option<SocketAddr> {
    let address = socket_address(value)?;
    if !protected && !address.ip().to_canonical().is_loopback() {
        let what = "a loopback address such as `127.0.0.1:9280` while no token \
            (`admin.token_file`, `admin.tokens`) protects it";
        return value.must_be(what);
    }
    not_of_clients(value, address, listen)
}

/// `address`, unless clients are served there.
fn not_of_clients(value: &Value<'_>, address: SocketAddr, listen: &[Listen]) -> Option<SocketAddr> {
    let shared = listen
        .iter()
        .any(|other| other.address.tcp() == Some(address));
    if shared && address.port() != 0 {
        return value.refuse(format!("{address} is already in `listen`"));
    }
    Some(address)
}
