//! What a server and a client of TLS do differently, as far as the stream has to know.

use std::ops::Deref;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{UnbufferedConnectionCommon, UnbufferedStatus};

/// The first byte of a record of the handshake, and of an alert (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;

/// One side of a connection, as rustls keeps it.
pub trait Side: Deref<Target = UnbufferedConnectionCommon<Self::Data>> + Unpin {
    /// What rustls keeps for this side alone.
    type Data;

    /// What the peer may begin with. A client begins a handshake; a server may refuse it.
    const FIRST: &[u8];

    /// Has rustls do the next thing with these records.
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    const FIRST: &[u8] = &[HANDSHAKE];

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    const FIRST: &[u8] = &[HANDSHAKE, ALERT];

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}
