//! API keys of a running server. A secret is printed once, by the verb that made it.

use std::time::Duration;

use lanekeeper_actors::kernel::clock::SystemClock;
use lanekeeper_actors::model::time::Timestamp;
use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, str_at, things};
use super::output;
use super::table::Table;

const SECOND: u64 = 1;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Units of a lifetime, in seconds.
const UNITS: [(char, u64); 4] = [('s', SECOND), ('m', MINUTE), ('h', HOUR), ('d', DAY)];
/// Names of the two keys of a grant, and of the one that a rotation may answer with alone.
const SECRETS: [&str; 3] = ["primary", "secondary", "secret"];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Issue a pair of keys; both are shown once, now
    #[command(after_help = "Example: lanekeeper keys issue --product carrier --tenant acme --expires 90d")]
    Issue {
        /// What may be called
        #[arg(long, value_name = "PRODUCT")]
        product: String,
        /// Who calls
        #[arg(long, value_name = "TENANT")]
        tenant: String,
        /// Lifetime such as `90d` or `12h`, or a date such as `2027-01-31`
        #[arg(long, value_name = "WHEN")]
        expires: Option<Expiry>,
    },
    /// List keys, without their secrets
    #[command(after_help = "Example: lanekeeper keys list --json")]
    List,
    /// Replace one of the two keys; the other one goes on working
    #[command(after_help = "Example: lanekeeper keys rotate 0192f0c1 --slot secondary")]
    Rotate {
        /// Id of the pair, from `keys list`
        id: String,
        /// Which of the two
        #[arg(long, value_enum, default_value_t = Slot::Primary)]
        slot: Slot,
    },
    /// Refuse both keys from now on, for ever
    #[command(after_help = "Example: lanekeeper keys revoke 0192f0c1")]
    Revoke {
        /// Id of the pair, from `keys list`
        id: String,
    },
}

/// One of the two keys of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Slot {
    Primary,
    Secondary,
}

impl Slot {
    fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

/// When a key stops working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expiry {
    /// So long from now.
    After(Duration),
    /// At this time of RFC 3339.
    At(String),
}

impl std::str::FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused =
            || format!("expected a lifetime such as `90d` or a date such as `2027-01-31`, found `{text}`");
        if let Some((unit, length)) = UNITS.iter().find(|(unit, _)| text.ends_with(*unit)) {
            let number: u64 = text.trim_end_matches(*unit).parse().map_err(|_| refused())?;
            let seconds = number.checked_mul(*length).filter(|seconds| *seconds > 0).ok_or_else(refused)?;
            return Ok(Self::After(Duration::from_secs(seconds)));
        }
        let date: Vec<&str> = text.get(.."yyyy-mm-dd".len()).ok_or_else(refused)?.split('-').collect();
        let is_date = date.iter().map(|part| part.len()).eq([4, 2, 2])
            && date.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_date {
            return Err(refused());
        }
        // The server judges the rest: a date alone is the beginning of that day.
        let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
        Ok(Self::At(whole))
    }
}

impl Expiry {
    fn rfc3339(&self, now: Timestamp) -> String {
        match self {
            Self::After(lifetime) => now.after(*lifetime).to_string(),
            Self::At(text) => text.clone(),
        }
    }
}

/// Runs a verb and returns what is to be printed.
pub(super) async fn run(verb: &Verb, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let (answer, text): (Value, fn(&Value) -> String) = match verb {
        Verb::Issue { product, tenant, expires } => {
            let mut body = json!({ "product": product, "tenant": tenant });
            if let (Some(expires), Some(body)) = (expires, body.as_object_mut()) {
                body.insert("expires".into(), expires.rfc3339(SystemClock::shared().now()).into());
            }
            (admin.post(&["v1", "keys"], body).await?, secrets)
        }
        Verb::List => (admin.get(&["v1", "keys"]).await?, list),
        Verb::Rotate { id, slot } => {
            let place = format!("{id}:rotate");
            (admin.post(&["v1", "keys", &place], json!({ "slot": slot.as_str() })).await?, secrets)
        }
        Verb::Revoke { id } => {
            let answer = admin.delete(&["v1", "keys", id]).await?;
            let done = json!({ "id": id, "revoked": true });
            (if answer.is_null() { done } else { answer }, |_| {
                "revoked: both keys are refused from now on".into()
            })
        }
    };
    Ok(if as_json { output::json(&answer) } else { text(&answer) })
}

fn secrets(answer: &Value) -> String {
    let mut text = format!("id         {}\n", cell(answer, &["/id"]));
    for name in SECRETS {
        if let Some(secret) = str_at(answer, &format!("/{name}")) {
            text.push_str(&format!("{name:<9}  {}\n", output::plain(secret)));
        }
    }
    if let Some(expires) = str_at(answer, "/expires") {
        text.push_str(&format!("expires    {}\n", output::plain(expires)));
    }
    text.push_str("Keep the secrets now: they are not shown again.");
    text
}

fn list(answer: &Value) -> String {
    let mut table =
        Table::new(&["ID", "PRODUCT", "TENANT", "KEYS", "STATE", "CREATED", "EXPIRES", "ROTATED"]);
    for key in things(answer, "keys") {
        let state = if key.pointer("/revoked").is_some_and(|at| !at.is_null() && at != &Value::Bool(false)) {
            "revoked".to_owned()
        } else {
            match key.pointer("/state").and_then(Value::as_str) {
                Some(state) => state.to_owned(),
                None => "active".to_owned(),
            }
        };
        table.row([
            cell(key, &["/id"]),
            cell(key, &["/product"]),
            cell(key, &["/tenant"]),
            cell(key, &["/hint", "/hints"]),
            state,
            cell(key, &["/created"]),
            cell(key, &["/expires"]),
            cell(key, &["/rotated"]),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_lifetime_or_a_date() {
        let now = Timestamp(0);
        let at = |text: &str| text.parse::<Expiry>().map(|expiry| expiry.rfc3339(now));
        assert_eq!(at("90d").unwrap(), "1970-04-01T00:00:00.000Z");
        assert_eq!(at("12h").unwrap(), "1970-01-01T12:00:00.000Z");
        assert_eq!(at("2027-01-31").unwrap(), "2027-01-31T00:00:00Z");
        assert_eq!(at("2027-01-31T10:00:00+02:00").unwrap(), "2027-01-31T10:00:00+02:00");
        for wrong in
            ["", "soon", "d", "0d", "-1d", "99999999999999999999d", "27-01-31", "2027/01/31", "2027-1-311"]
        {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_shown_by_the_verb_that_made_them_and_not_by_the_list() {
        let made = json!({"id": "k1", "primary": "lk_aaa", "secondary": "lk_bbb"});
        assert_eq!(
            secrets(&made),
            "id         k1\nprimary    lk_aaa\nsecondary  lk_bbb\nKeep the secrets now: they are not shown again."
        );
        let answer = json!({"keys": [{"id": "k1", "product": "carrier", "tenant": "acme", "hint": ["lk_a", "lk_b"],
            "created": "2026-01-31T08:30:00.000Z", "expires": null, "revoked": "2026-02-01T00:00:00.000Z"}]});
        assert_eq!(
            list(&answer),
            "ID  PRODUCT  TENANT  KEYS        STATE    CREATED                   EXPIRES  ROTATED\n\
             k1  carrier  acme    lk_a, lk_b  revoked  2026-01-31T08:30:00.000Z  -        -\n"
        );
    }
}
