//! The verifier as a stranger meets it: tokens made by hand and signed with another library than the one that checks.

mod attacks;
mod chaos;
mod claiming;
mod material;
mod reload;
mod rotation;
mod secure;
mod server;
mod vectors;

use std::sync::Arc;

use lanekeeper_actors::kernel::clock::ManualClock;
use lanekeeper_actors::model::time::Timestamp;
use serde_json::{Value, json};

use super::{Identity, KeySource, Refusal, Verified, Verifier};
use material::Signer;

/// 2026-01-01T00:00:00Z, in seconds.
const NOW: u64 = 1_767_225_600;
const STAFF: &str = "https://login.example/v2.0";
const AUDIENCE: &str = "api://northwind";

fn clock() -> Arc<ManualClock> {
    ManualClock::at(Timestamp(NOW * 1_000))
}

/// Claims that are in order.
fn good() -> Value {
    json!({ "iss": STAFF, "aud": AUDIENCE, "exp": NOW + 600, "iat": NOW, "sub": "anna", "tid": "acme", "roles": ["ops"] })
}

/// Claims that are in order but for some.
fn with(changes: Value) -> Value {
    let mut claims = good();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// Writes a set of keys into a file that lives as long as what is returned.
fn file(keys: &[Value]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
    file
}

fn file_identity(file: &tempfile::NamedTempFile) -> Identity {
    Identity::new("staff", STAFF, KeySource::File(file.path().to_owned()), &[AUDIENCE])
}

fn verifier(identities: Vec<Identity>, clock: &Arc<ManualClock>) -> Verifier {
    Verifier::new(identities, Arc::clone(clock) as _).unwrap()
}

async fn refusal(verifier: &Verifier, token: &str) -> Option<Refusal> {
    verifier.verify(token).await.err()
}

async fn accepted(verifier: &Verifier, token: &str) -> Arc<Verified> {
    verifier.verify(token).await.unwrap()
}

fn plain(signer: &Signer, kid: &str, claims: &Value) -> String {
    signer.token(&json!({ "alg": signer.algorithm(), "kid": kid, "typ": "JWT" }), claims)
}
