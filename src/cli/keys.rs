//! API keys of a running server. A secret is printed once, by the verb that made it.

use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, str_at, things};
use super::output;
use super::table::Table;

/// Names of the two keys of a grant.
const SECRETS: [&str; 2] = ["primary", "secondary"];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Issue a pair of keys; both are shown once, now
    #[command(after_help = "Example: lanekeeper keys issue --product carrier --tenant acme --expires 90d")]
    Issue {
        /// What may be called
        #[arg(long, value_name = "PRODUCT", required_unless_present_any = ["api", "access"])]
        product: Option<String>,
        /// One api instead of a product, on the terms of none
        #[arg(long, value_name = "API", conflicts_with = "product")]
        api: Option<String>,
        /// Every api instead of a product, on the terms of none
        #[arg(long, value_enum, conflicts_with_all = ["product", "api"])]
        access: Option<Access>,
        /// Let the key wait for an approval, where its product asks for one
        #[arg(long)]
        submit: bool,
        /// Who calls
        #[arg(long, value_name = "TENANT")]
        tenant: String,
        /// Lifetime such as `90d` or `12h`, or a date such as `2027-01-31`
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
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
    /// Let a pair work that waits for it
    #[command(after_help = "Example: lanekeeper keys approve 0192f0c1")]
    Approve {
        /// Id of the pair, from `keys list`
        id: String,
    },
    /// Refuse a pair that waits, for ever
    #[command(after_help = "Example: lanekeeper keys reject 0192f0c1")]
    Reject {
        /// Id of the pair, from `keys list`
        id: String,
    },
    /// Refuse both keys until they are resumed
    #[command(after_help = "Example: lanekeeper keys suspend 0192f0c1")]
    Suspend {
        /// Id of the pair, from `keys list`
        id: String,
    },
    /// Let a pair work again that was suspended
    #[command(after_help = "Example: lanekeeper keys resume 0192f0c1")]
    Resume {
        /// Id of the pair, from `keys list`
        id: String,
    },
    /// Refuse both keys from now on, for ever
    #[command(after_help = "Example: lanekeeper keys revoke 0192f0c1")]
    Revoke {
        /// Id of the pair, from `keys list`
        id: String,
    },
}

/// What is opened besides products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Access {
    #[value(name = "all_apis")]
    AllApis,
    #[value(name = "all_access")]
    AllAccess,
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

/// Runs a verb and returns what is to be printed.
pub(super) async fn run(verb: &Verb, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let (answer, text): (Value, fn(&Value) -> String) = match verb {
        Verb::Issue { product, api, access, submit, tenant, expires } => {
            let access = access.map(|access| match access {
                Access::AllApis => "all_apis",
                Access::AllAccess => "all_access",
            });
            let body = json!({
                "product": product, "api": api, "access": access, "submit": submit, "tenant": tenant, "expires": expires
            });
            (admin.post(&["v1", "keys"], body).await?, secrets)
        }
        Verb::List => (admin.get(&["v1", "keys"]).await?, list),
        Verb::Rotate { id, slot } => {
            let place = format!("{id}:rotate");
            (admin.post(&["v1", "keys", &place], json!({ "slot": slot.as_str() })).await?, secrets)
        }
        Verb::Approve { id } => (step(admin, id, "approve").await?, standing),
        Verb::Reject { id } => (step(admin, id, "reject").await?, standing),
        Verb::Suspend { id } => (step(admin, id, "suspend").await?, standing),
        Verb::Resume { id } => (step(admin, id, "resume").await?, standing),
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

async fn step(admin: &Admin, id: &str, step: &str) -> Result<Value, Failure> {
    let place = format!("{id}:{step}");
    admin.post(&["v1", "keys", &place], json!({})).await
}

fn standing(answer: &Value) -> String {
    format!("{}: {}", cell(answer, &["/id"]), cell(answer, &["/state"]))
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
        Table::new(&["ID", "PRODUCT", "TENANT", "KEYS", "STATE", "CREATED", "EXPIRES", "LAST USED"]);
    for key in things(answer, "keys") {
        table.row([
            cell(key, &["/id"]),
            cell(key, &["/product", "/api", "/access"]),
            cell(key, &["/tenant"]),
            format!("{} {}", cell(key, &["/primary_hint"]), cell(key, &["/secondary_hint"]))
                .trim()
                .to_owned(),
            cell(key, &["/state"]),
            cell(key, &["/created"]),
            cell(key, &["/expires"]),
            cell(key, &["/last_used"]),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_shown_by_the_verb_that_made_them_and_not_by_the_list() {
        let made = json!({"id": "k1", "primary": "lk_aaa", "secondary": "lk_bbb"});
        assert_eq!(
            secrets(&made),
            "id         k1\nprimary    lk_aaa\nsecondary  lk_bbb\nKeep the secrets now: they are not shown again."
        );
        let answer = json!({"keys": [{"id": "k1", "product": "carrier", "tenant": "acme", "primary_hint": "lk_a",
            "secondary_hint": "lk_b", "state": "revoked", "created": "2026-01-31T08:30:00.000Z", "expires": null, "revoked": "2026-02-01T00:00:00.000Z"}]});
        assert_eq!(
            list(&answer),
            "ID  PRODUCT  TENANT  KEYS       STATE    CREATED                   EXPIRES  LAST USED\n\
             k1  carrier  acme    lk_a lk_b  revoked  2026-01-31T08:30:00.000Z  -        -\n"
        );
    }
}
