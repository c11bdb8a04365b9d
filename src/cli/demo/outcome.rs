//! What came of it all: for each subscriber, what was written and what became of it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::project::{Name, Write};
use super::subscribers::Subscribers;
use crate::cli::output::counted;
use crate::cli::table::Table;

/// What is told of the mailbox of a subscriber, which only the backend knows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mailbox {
    /// Events that were given up.
    pub(super) dead_lettered: u64,
    /// Events of those that were delivered again.
    pub(super) replayed: u64,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) subscription: &'static str,
    /// Writes that the gateway acknowledged.
    pub(super) written: u64,
    /// Those that are events of the subscription.
    pub(super) matched: u64,
    /// Events that the subscriber took, each counted once.
    pub(super) delivered: u64,
    /// Attempts after the first one.
    pub(super) retried: u64,
    pub(super) dead_lettered: u64,
    pub(super) replayed: u64,
    /// Events that came more than once.
    pub(super) duplicates: u64,
    /// Events that matched and never came.
    pub(super) lost: u64,
}

/// The whole table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Outcome {
    pub(super) subscriptions: Vec<Line>,
    /// Problems that `verify` found in the data directory afterwards; `None` if it was not asked.
    pub(super) verify_problems: Option<u64>,
    /// Whether every acknowledged write is at everybody it was meant for.
    pub(super) nothing_lost: bool,
}

impl Outcome {
    /// Compares what was acknowledged with the subscribers' ledgers.
    pub(super) fn of(acknowledged: &BTreeSet<Write>, subscribers: &Subscribers, partner: Mailbox) -> Self {
        let line = |name: Name| {
            let matched: BTreeSet<Write> =
                acknowledged.iter().copied().filter(|write| name.wants(*write)).collect();
            let mailbox = if name == Name::PartnerWebhook { partner } else { Mailbox::default() };
            subscribers.read(name, |ledger| Line {
                subscription: name.as_str(),
                written: acknowledged.len() as u64,
                matched: matched.len() as u64,
                delivered: ledger.delivered(),
                retried: ledger.retried,
                dead_lettered: mailbox.dead_lettered,
                replayed: mailbox.replayed,
                duplicates: ledger.duplicates(),
                lost: ledger.missing(&matched),
            })
        };
        let subscriptions: Vec<Line> = Name::ALL.into_iter().map(line).collect();
        let nothing_lost = subscriptions.iter().all(|line| line.lost == 0);
        Self { subscriptions, verify_problems: None, nothing_lost }
    }

    /// Whether the demonstration showed what it is there to show.
    pub(super) fn is_good(&self) -> bool {
        self.nothing_lost && self.verify_problems.unwrap_or(0) == 0
    }

    pub(super) fn table(&self) -> String {
        let mut table = Table::new(&[
            "SUBSCRIPTION",
            "WRITTEN",
            "MATCHED",
            "DELIVERED",
            "RETRIED",
            "DEAD-LETTERED",
            "REPLAYED",
            "LOST",
        ]);
        for line in &self.subscriptions {
            let numbers = [
                line.written,
                line.matched,
                line.delivered,
                line.retried,
                line.dead_lettered,
                line.replayed,
                line.lost,
            ];
            let numbers = numbers.iter().map(u64::to_string);
            table.row(std::iter::once(line.subscription.to_owned()).chain(numbers));
        }
        table.render()
    }

    pub(super) fn verdict(&self) -> String {
        let lost: u64 = self.subscriptions.iter().map(|line| line.lost).sum();
        let mut text = match lost {
            0 => "Nothing was lost: every acknowledged load is at everybody it was meant for.".to_owned(),
            lost => format!("{} lost.", counted(lost, "event")),
        };
        let duplicates: u64 = self.subscriptions.iter().map(|line| line.duplicates).sum();
        if duplicates > 0 {
            text.push_str(&format!(
                " ({} came twice, as at-least-once allows.)",
                counted(duplicates, "event")
            ));
        }
        match self.verify_problems {
            None => {}
            Some(0) => {
                text.push_str("\nThe data directory was checked afterwards, byte by byte: it is sound.")
            }
            Some(problems) => {
                text.push_str(&format!("\nThe data directory is damaged: {}.", counted(problems, "problem")));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_acknowledged_and_never_came_is_lost() {
        let subscribers = Subscribers::start().await.unwrap();
        let acknowledged = BTreeSet::from([Write::create(1), Write::update(1), Write::create(2)]);
        let outcome = Outcome::of(&acknowledged, &subscribers, Mailbox { dead_lettered: 2, replayed: 1 });
        let lost: Vec<_> = outcome.subscriptions.iter().map(|line| (line.matched, line.lost)).collect();
        assert_eq!(lost, [(2, 2), (3, 3), (3, 3), (2, 2)]);
        assert!(!outcome.is_good());
        assert_eq!(outcome.verdict(), "10 events lost.");
        assert_eq!(
            outcome.table().lines().last().unwrap(),
            "partner-webhook             3        2          0        0              2         1     2"
        );
    }

    #[tokio::test]
    async fn damage_spoils_a_demonstration_that_lost_nothing() {
        let subscribers = Subscribers::start().await.unwrap();
        let mut outcome = Outcome::of(&BTreeSet::new(), &subscribers, Mailbox::default());
        assert!(outcome.is_good());
        outcome.verify_problems = Some(1);
        assert!(!outcome.is_good());
        assert!(outcome.verdict().ends_with("damaged: 1 problem."));
    }
}
