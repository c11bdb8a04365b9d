//! Stands between the rows and trust in them: a server that is wrong in a known way must turn a row red.
//! Invariant: the same row is played on the sound server first, so a row that is always red proves nothing.

use super::report::{Ending, Played};
use super::scene::Context;
use super::{Row, catalogue, play};

/// A way to be wrong, and the row that must see it.
struct Bug {
    name: &'static str,
    /// As `FAILPOINTS` has it.
    failpoints: &'static str,
    row: u8,
}

const BUGS: [Bug; 5] = [
    Bug { name: "outcome commit dropped", failpoints: "subscriber::outcome_dropped=return", row: 7 },
    Bug { name: "redirect followed", failpoints: "delivery::follow_redirects=return", row: 17 },
    Bug { name: "jitter missing", failpoints: "subscriber::no_jitter=return", row: 48 },
    Bug { name: "deadline without the body", failpoints: "delivery::endless_drain=return", row: 5 },
    Bug { name: "cursor advanced too early", failpoints: "subscriber::cursor_too_early=return", row: 31 },
];

/// Plays the row of each bug without it and with it.
pub(super) async fn run(context: &Context) -> Vec<Played> {
    let mut proofs = Vec::new();
    for (number, bug) in (1..).zip(BUGS) {
        let Some(row) = catalogue::ROWS.iter().find(|row| row.number == bug.row).copied() else { continue };
        let proof = prove(number, &bug, row, context).await;
        eprintln!("[{number}/{}] {} ({:.1} s)", BUGS.len(), bug.name, proof.seconds);
        proofs.push(proof);
    }
    proofs
}

async fn prove(number: u8, bug: &Bug, row: Row, context: &Context) -> Played {
    let sound = play(row, context.clone(), false).await;
    let wrong = Context { failpoints: bug.failpoints.to_owned(), ..context.clone() };
    let broken = play(row, wrong, false).await;
    let (ending, seen) = match (sound.ending, broken.ending) {
        (Ending::Passed, Ending::Missed) => (Ending::Passed, format!("seen: {}", broken.seen)),
        (Ending::Passed, _) => {
            let text = "not seen; is the server built with `--features failpoints`?";
            (Ending::Missed, text.to_owned())
        }
        (_, _) => (Ending::Missed, format!("the row does not pass on a sound server: {}", sound.seen)),
    };
    Played {
        row: number.to_string(),
        scenario: bug.name.to_owned(),
        expected: format!("row {} ({}) turns red", row.number, row.name),
        ending,
        seen,
        seconds: sound.seconds + broken.seconds,
    }
}
