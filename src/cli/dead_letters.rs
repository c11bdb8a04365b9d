//! Events that a subscription gave up: looked at, delivered again, or forgotten.

use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, number, str_at, things};
use super::output::{self, counted};
use super::table::Table;

/// Dead letters that are listed when nobody names a number.
const LIMIT: u64 = 1_000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List the dead letters of a subscription, the oldest first
    #[command(after_help = "Example: lanekeeper dead-letters list partner-webhook --limit 20")]
    List {
        /// Name of the subscription
        subscription: String,
        /// Most that are listed
        #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Deliver dead letters again, with all attempts anew
    #[command(after_help = "Examples:\n  lanekeeper dead-letters replay partner-webhook --all\n  \
                            lanekeeper dead-letters replay partner-webhook 0-812 0-815 --rate 50\n  \
                            lanekeeper dead-letters replay partner-webhook --all --to partner-webhook-2\n  \
                            lanekeeper dead-letters replay partner-webhook --filter \
                            '[{\"key\":\"data.weight\",\"operator\":\"NumberGreaterThan\",\"value\":1000}]'")]
    Replay {
        /// Name of the subscription
        subscription: String,
        /// Ids of the events
        #[arg(value_name = "ID", required_unless_present_any = ["all", "filter"], conflicts_with_all = ["all", "filter"])]
        ids: Vec<String>,
        /// Those that meet all of these conditions: a JSON array, as in the manifest
        #[arg(long, value_name = "JSON", conflicts_with = "all", value_parser = conditions)]
        filter: Option<Value>,
        /// All of them
        #[arg(long)]
        all: bool,
        /// Events per second, at most [default: as fast as the endpoint takes them]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
        /// Another subscription, which delivers them to its endpoint instead
        #[arg(long, value_name = "SUBSCRIPTION")]
        to: Option<String>,
    },
    /// Forget all dead letters of a subscription
    #[command(after_help = "Example: lanekeeper dead-letters purge partner-webhook")]
    Purge {
        /// Name of the subscription
        subscription: String,
    },
}

/// Runs a verb and returns what is to be printed.
pub(super) async fn run(verb: &Verb, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let (answer, text) = match verb {
        Verb::List { subscription, limit } => {
            let answer = pages(admin, subscription, *limit).await?;
            let text = list(&answer);
            (answer, text)
        }
        Verb::Replay { subscription, ids, filter, all, rate, to } => {
            let mut body = match (filter, all) {
                (Some(filter), _) => json!({ "filter": filter }),
                (None, true) => json!({ "all": true }),
                (None, false) => json!({ "ids": ids }),
            };
            if let (Some(rate), Some(body)) = (rate, body.as_object_mut()) {
                body.insert("rate".to_owned(), json!(rate));
            }
            if let (Some(to), Some(body)) = (to, body.as_object_mut()) {
                body.insert("to".to_owned(), json!(to));
            }
            let answer = replay(admin, subscription, body).await?;
            let text = match replayed(&answer) {
                Some(number) => format!("{} delivered again", counted(number, "event")),
                None => "delivered again".to_owned(),
            };
            (answer, text)
        }
        Verb::Purge { subscription } => {
            let answer = admin.delete(&["v1", "subscriptions", subscription, "dead-letters"]).await?;
            let text = match number(&answer, &["/purged"]) {
                Some(number) => format!("{} forgotten", counted(number, "event")),
                None => "forgotten".to_owned(),
            };
            (answer, text)
        }
    };
    Ok(if as_json { output::json(&answer) } else { text })
}

/// Reads pages until there are `limit` dead letters or no more.
pub(super) async fn pages(admin: &Admin, subscription: &str, limit: u64) -> Result<Value, Failure> {
    let place = ["v1", "subscriptions", subscription, "dead-letters"];
    let mut letters: Vec<Value> = Vec::new();
    let mut continuation: Option<String> = None;
    loop {
        let rest = limit.saturating_sub(letters.len() as u64);
        let mut query = vec![("limit", rest.to_string())];
        query.extend(continuation.take().map(|after| ("continuation", after)));
        let page = admin.query(&place, &query).await?;
        let found = things(&page, "dead_letters");
        letters.extend_from_slice(found);
        continuation = str_at(&page, "/continuation").filter(|_| !found.is_empty()).map(str::to_owned);
        if continuation.is_none() || letters.len() as u64 >= limit {
            let count = letters.len();
            return Ok(json!({ "dead_letters": letters, "count": count, "continuation": continuation }));
        }
    }
}

/// Has dead letters delivered again.
pub(super) async fn replay(admin: &Admin, subscription: &str, body: Value) -> Result<Value, Failure> {
    admin.post(&["v1", "subscriptions", subscription, "dead-letters:replay"], body).await
}

/// Reads conditions; what they may say, the server knows.
fn conditions(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.is_array() { Ok(value) } else { Err("a JSON array of conditions is needed".to_owned()) }
}

/// How many were taken out of the mailbox.
pub(super) fn replayed(answer: &Value) -> Option<u64> {
    number(answer, &["/replayed"])
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&["ID", "TYPE", "SUBJECT", "REASON", "ATTEMPTS", "LAST", "GIVEN UP"]);
    for letter in things(answer, "dead_letters") {
        table.row([
            cell(letter, &["/id"]),
            cell(letter, &["/type"]),
            cell(letter, &["/event/subject"]),
            cell(letter, &["/reason"]),
            cell(letter, &["/attempts"]),
            cell(letter, &["/last_status", "/last_outcome"]),
            cell(letter, &["/at"]),
        ]);
    }
    let mut text = table.render();
    if str_at(answer, "/continuation").is_some() {
        text.push_str("There are more: --limit shows them.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_list_says_what_was_given_up_and_why() {
        let answer = json!({"dead_letters": [{"id": "0-812", "type": "LoadCreated", "event": {"subject": "AMS-PAR/load-1"},
            "reason": "MaxDeliveryAttemptsExceeded", "attempts": 4, "last_outcome": "Rejected", "last_status": 500,
            "at": "2026-01-31T08:30:00.000Z"}], "continuation": "x"});
        assert_eq!(
            list(&answer),
            "ID     TYPE         SUBJECT         REASON                       ATTEMPTS  LAST  GIVEN UP\n\
             0-812  LoadCreated  AMS-PAR/load-1  MaxDeliveryAttemptsExceeded         4   500  \
             2026-01-31T08:30:00.000Z\nThere are more: --limit shows them.\n"
        );
    }

    /// Answers each request with the next of these bodies, and returns the first line of each.
    async fn serve(listener: TcpListener, bodies: Vec<Value>) -> Vec<String> {
        let mut lines = Vec::new();
        for body in bodies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            lines.push(String::from_utf8(request).unwrap().lines().next().unwrap().to_owned());
            let body = body.to_string();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
        lines
    }

    #[tokio::test]
    async fn pages_are_read_until_the_limit_or_the_end() {
        let page = |ids: &[&str], continuation: Option<&str>| {
            let letters: Vec<_> = ids.iter().map(|id| json!({ "id": id })).collect();
            json!({ "dead_letters": letters, "continuation": continuation })
        };
        for (limit, asked, left) in [(9, 2, None), (3, 2, None), (2, 1, Some("0-2"))] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base = format!("http://{}", listener.local_addr().unwrap());
            let admin = Admin::new(base.parse().unwrap(), "token".into()).unwrap();
            let bodies = vec![page(&["0-1", "0-2"], Some("0-2")), page(&["1-7"], None)];
            let (answer, lines) = tokio::join!(
                pages(&admin, "s", limit),
                serve(listener, bodies.into_iter().take(asked).collect())
            );
            let answer = answer.unwrap();
            assert_eq!(str_at(&answer, "/continuation"), left);
            assert_eq!(answer["count"], if asked == 2 { 3 } else { 2 });
            assert_eq!(lines[0], format!("GET /v1/subscriptions/s/dead-letters?limit={limit} HTTP/1.1"));
            if let Some(second) = lines.get(1) {
                let rest = limit - 2;
                assert!(second.contains(&format!("?limit={rest}&continuation=0-2 ")), "{second}");
            }
        }
    }
}
