//! Stands between an answer and the counts of what its caller uses.

use actix_web::body::{BodySize, MessageBody};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use lanekeeper_actors::gateway::{UsageHandle, Used};
use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::policy::charge::RequestUnits;

use super::body::Length;

/// The header that tells what a request cost.
const CHARGE: &str = "x-request-charge";

/// Counts an admitted call, and returns the bytes of its answer.
pub(super) fn note(
    usage: &UsageHandle,
    (tenant, key): (&TenantId, &Name),
    req: &HttpRequest,
    response: &HttpResponse,
) -> u64 {
    let charge = response.headers().get(CHARGE).and_then(|value| units(value.to_str().ok()?));
    let bytes_in = req.extensions().get::<Length>().map_or(0, |length| length.0);
    let bytes_out = match response.body().size() {
        BodySize::Sized(bytes) => bytes,
        BodySize::None | BodySize::Stream => 0,
    };
    usage.note(tenant, key, &Used::call(charge.unwrap_or_default(), bytes_in, bytes_out));
    bytes_out
}

/// Reads `5.71`, as charges are written.
fn units(text: &str) -> Option<RequestUnits> {
    let (whole, part) = text.split_once('.')?;
    let (whole, part) = (whole.parse::<u64>().ok()?, part.parse::<u64>().ok().filter(|_| part.len() == 2)?);
    Some(RequestUnits::from_hundredths(whole.checked_mul(100)?.checked_add(part)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_read_as_it_is_written() {
        for hundredths in [0, 1, 99, 100, 571, 123_456] {
            let charge = RequestUnits::from_hundredths(hundredths);
            assert_eq!(units(&charge.to_string()), Some(charge));
        }
        for text in ["", "5", "5.7", "5.711", "x.10", "-1.00"] {
            assert_eq!(units(text), None, "{text}");
        }
    }
}
