//! Bytes that wait to be taken.

/// Bytes that wait to be taken; no memory where there are none.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    /// Where the rest begins.
    at: usize,
}

impl Pending {
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.at += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
