//! How an exchange with a server ended, and which ends count as failures.

/// How an exchange ended, as far as a decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// There was an answer with this status.
    Answered(u16),
    /// There was no connection: nothing of the request was sent.
    Unreachable,
    /// The connection ended, or brought something that is no answer, after the request was sent.
    Broken,
    /// There was no answer in time.
    TimedOut,
}

/// The ends that count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Causes {
    /// Ranges of status codes, both ends included.
    pub statuses: Vec<(u16, u16)>,
    /// No connection, or one that ended without an answer.
    pub connect: bool,
    /// No answer in time.
    pub timeout: bool,
}

impl Causes {
    /// What speaks for trouble of the server when nobody says otherwise.
    pub fn usual() -> Self {
        Self { statuses: vec![(500, 599)], connect: true, timeout: true }
    }

    /// Whether this end counts.
    pub fn has(&self, ending: Ending) -> bool {
        match ending {
            Ending::Answered(status) => {
                self.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status))
            }
            Ending::Unreachable | Ending::Broken => self.connect,
            Ending::TimedOut => self.timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_ends_count() {
        let usual = Causes::usual();
        let one = Causes { statuses: vec![(429, 429), (503, 504)], ..Causes::default() };
        for (ending, of_usual, of_one) in [
            (Ending::Answered(200), false, false),
            (Ending::Answered(429), false, true),
            (Ending::Answered(499), false, false),
            (Ending::Answered(500), true, false),
            (Ending::Answered(504), true, true),
            (Ending::Answered(599), true, false),
            (Ending::Unreachable, true, false),
            (Ending::Broken, true, false),
            (Ending::TimedOut, true, false),
        ] {
            assert_eq!((usual.has(ending), one.has(ending)), (of_usual, of_one), "{ending:?}");
        }
    }
}
