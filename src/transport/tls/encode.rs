//! How rustls's messages and encrypted bytes get into a buffer.

use std::io;

use rustls::unbuffered::{
    EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, WriteTraffic,
};

/// What is to be done when rustls has nothing else to do.
pub(super) enum Then<'a> {
    /// Nothing.
    Wait,
    /// Encrypt this.
    Encrypt(&'a [u8]),
    /// End our side.
    Close,
}

/// Does what is to be done when rustls has nothing else to do.
pub(super) fn follow<Data>(
    mut traffic: WriteTraffic<'_, Data>,
    then: &Then<'_>,
    encrypted: &mut Vec<u8>,
) -> io::Result<()> {
    let wanted = |result| match result {
        Ok(written) => Ok(written),
        Err(EncryptError::InsufficientSize(size)) => Err(Some(size)),
        Err(EncryptError::EncryptExhausted) => Err(None),
    };
    match then {
        Then::Wait => Ok(()),
        Then::Encrypt(bytes) => append(encrypted, |room| wanted(traffic.encrypt(bytes, room))),
        Then::Close => append(encrypted, |room| wanted(traffic.queue_close_notify(room))),
    }
}

/// Appends a message of rustls's own.
pub(super) fn append_message<Data>(
    mut data: EncodeTlsData<'_, Data>,
    to: &mut Vec<u8>,
) -> io::Result<()> {
    append(to, |room| match data.encode(room) {
        Ok(written) => Ok(written),
        Err(EncodeError::InsufficientSize(size)) => Err(Some(size)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
    })
}

/// Appends what `write` writes. It is called again with the room that it wants.
fn append(
    to: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> io::Result<()> {
    let begin = to.len();
    let mut size = write(&mut []);
    // What it wants grows once at most, by an update of keys.
    for _ in 0..3 {
        match size {
            Ok(written) => {
                to.truncate(begin + written);
                return Ok(());
            }
            Err(Some(InsufficientSizeError { required_size })) => {
                to.resize(begin + required_size, 0);
                size = write(&mut to[begin..]);
            }
            Err(None) => break,
        }
    }
    to.truncate(begin);
    Err(io::Error::other("TLS cannot encrypt any more"))
}
