//! What the probes say of a node.

/// What the probes say of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// It has not been probed yet.
    Unknown,
    /// It answers its probes.
    Up,
    /// It answers nothing, and its connections stay open: it pauses, or something between it and
    /// the balancer does. It keeps its sessions and gets no new ones.
    Silent,
    /// It answers again after it went down more than once lately. It keeps its sessions, and gets
    /// new ones when its penalty is over.
    HeldBack,
    /// It refuses or closes connections, answers probes with errors, or was silent for longer than
    /// `health.silence`. Its sessions move.
    Down,
}

impl Verdict {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Up,
        Self::Silent,
        Self::HeldBack,
        Self::Down,
    ];

    /// The word for it in JSON and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Silent => "silent",
            Self::HeldBack => "held_back",
            Self::Down => "down",
        }
    }

    pub(super) fn of_number(number: u8) -> Self {
        let verdict = Self::ALL.get(usize::from(number));
        verdict.copied().unwrap_or(Self::Unknown)
    }
}
