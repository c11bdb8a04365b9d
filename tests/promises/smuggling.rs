//! Every request is read in one way or not at all: nothing rides in on another one's bytes.

use super::project;
use super::server::{KEY, Server};
use super::smuggling_table::{self as table, Fate, ROWS, Row, SECOND};

const PONG: &str = "{\"ok\":true}";
/// Nobody says this, so everything is read up to the end.
const NEVER: &str = "\u{0}";

fn bytes(text: &str) -> Vec<u8> {
    let text = text
        .replace("KEY", KEY)
        .replace("LONG_HEADER", &"x".repeat(table::LONG_HEADER))
        .replace("HUGE_HEADER", &"x".repeat(table::HUGE_HEADER))
        .replace("LONG_URI", &"x".repeat(table::LONG_URI));
    text.into_bytes()
}

/// Statuses of the answers, in their order. `100 Continue` is no answer.
fn statuses(said: &str) -> Vec<u16> {
    let lines = said.split("HTTP/1.1 ").skip(1);
    let statuses = lines.map(|rest| rest.get(..3).and_then(|status| status.parse().ok()).unwrap_or_default());
    statuses.filter(|status| *status != 100).collect()
}

/// What is wrong with what a server made of a row, if anything.
async fn judge(server: &Server, row: &Row) -> Option<String> {
    // The last request closes the connection, so there is an end to wait for.
    let second = bytes(&SECOND.replace("host: a\r\n", "host: a\r\nconnection: close\r\n"));
    let said = server.raw(&[bytes(row.bytes), second].concat(), NEVER).await;
    let (statuses, pongs) = (statuses(&said), said.matches(PONG).count());
    let good = match row.fate {
        Fate::Refused(status) => statuses == [status] && pongs == 0,
        Fate::Answered(200) => statuses == [200, 200] && pongs == 2,
        Fate::Answered(status) => statuses == [status, 200] && pongs == 1,
        Fate::Ended(status) => (statuses.is_empty() || statuses == [status]) && pongs == 0,
    };
    (!good).then(|| format!("{}: {:?} expected, got {statuses:?} and {pongs} pongs", row.name, row.fate))
}

#[tokio::test]
async fn no_request_rides_in_on_another() {
    let house = project::house("", "");
    let server = house.start().await;
    let mut wrong = Vec::new();
    for row in ROWS {
        wrong.extend(judge(&server, row).await);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let list = server.get(&format!("{}/a", table::BODIES)).await;
    assert_eq!(list.body["count"], 0, "something was written: {}", list.text);
    assert!(server.stop().await.success());
}
