//! How much of something is in use, of what there may be.

/// Something that there may be only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What.
    pub what: &'static str,
    /// How much of it there is.
    pub used: i64,
    /// How much there may be; 0 is not known.
    pub most: i64,
}

impl Limit {
    /// The used part, 0 to 1.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a share needs no exact last digit"
    )]
    pub fn part(&self) -> f64 {
        if self.most > 0 {
            self.used as f64 / self.most as f64
        } else {
            0.0
        }
    }
}
