//! The client of the demonstration: posts loads with a key, several at a time, and remembers what was acknowledged.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{StreamExt as _, iter};
use reqwest::{Client, StatusCode};

use super::project::{CREATED, Write};
use crate::cli::admin::causes;
use crate::cli::failure::Failure;
use crate::cli::output::plain;

/// Requests at a time.
const CONCURRENCY: usize = 16;
/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Characters that are shown of an answer that was not expected.
const EXCERPT_CHARS: usize = 300;

/// A carrier with its key.
#[derive(Debug)]
pub(super) struct Carrier {
    client: Client,
    gateway: SocketAddr,
    key: String,
    /// What the gateway has acknowledged.
    acknowledged: BTreeSet<Write>,
}

impl Carrier {
    pub(super) fn new(gateway: SocketAddr, key: &str) -> Result<Self, Failure> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| Failure::Failed(format!("no HTTP client: {}", causes(&error))))?;
        Ok(Self { client, gateway, key: key.to_owned(), acknowledged: BTreeSet::new() })
    }

    /// What the gateway has acknowledged so far.
    pub(super) fn acknowledged(&self) -> &BTreeSet<Write> {
        &self.acknowledged
    }

    /// Writes loads; `each` is called after each acknowledgement. Only loads that the gateway refuses are an error.
    pub(super) async fn write(
        &mut self,
        writes: impl IntoIterator<Item = Write>,
        each: impl Fn(),
    ) -> Result<(), Failure> {
        let Self { client, gateway, key, acknowledged } = self;
        let mut answers =
            iter(writes).map(|write| send(client, *gateway, key, write)).buffer_unordered(CONCURRENCY);
        while let Some(answer) = answers.next().await {
            acknowledged.insert(answer?);
            each();
        }
        Ok(())
    }
}

async fn send(client: &Client, gateway: SocketAddr, key: &str, write: Write) -> Result<Write, Failure> {
    let loads = format!("http://{gateway}/freight/v1/loads");
    let (request, expected) = if write.revision == CREATED {
        (client.post(loads), StatusCode::CREATED)
    } else {
        (client.put(format!("{loads}/{}/{}", write.lane(), write.id())), StatusCode::OK)
    };
    let lost =
        |error: reqwest::Error| Failure::Failed(format!("no answer from the gateway: {}", causes(&error)));
    let answer = request.header("x-api-key", key).json(&write.document()).send().await.map_err(lost)?;
    let status = answer.status();
    if status == expected {
        return Ok(write);
    }
    let text: String = answer.text().await.map_err(lost)?.chars().take(EXCERPT_CHARS).collect();
    Err(Failure::Failed(format!("the gateway answers {status} to {}: {}", write.id(), plain(&text))))
}
