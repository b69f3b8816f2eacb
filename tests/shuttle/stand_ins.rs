//! What a session stores and the models do not use.

pub mod cluster {
    /// As `bowline::cluster::NodeId`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct NodeId(pub u16);

    /// As `bowline::cluster::QueryGroup`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct QueryGroup(std::num::NonZeroU16);

    impl QueryGroup {
        pub fn number(self) -> u16 {
            self.0.get()
        }

        pub fn of_number(number: u16) -> Option<Self> {
            std::num::NonZeroU16::new(number).map(Self)
        }
    }

    /// As `bowline::cluster::Epoch`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Epoch(u32);

    impl Epoch {
        pub fn of_number(number: u32) -> Self {
            Self(number)
        }

        pub fn number(self) -> u32 {
            self.0
        }

        pub fn is_before(self, other: Self) -> bool {
            self.0 < other.0
        }
    }
}

pub mod upstream {
    /// As `bowline::upstream::Connection`.
    #[derive(Debug)]
    pub struct Connection;

    impl Connection {
        pub fn is_quiet(&self) -> bool {
            true
        }
    }
}
