//! Stands between a signed request and a row: verifies Standard Webhooks signatures, independently of the server's code.
//! Invariant: knows nothing but the text of the standard: `v1` is HMAC-SHA256 over id, timestamp and body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Whether each of these requests, word for word, has a signature by this secret. None at all is not verified.
pub(crate) fn verify_all(requests: &[String], secret: &str) -> bool {
    !requests.is_empty() && requests.iter().all(|request| verify(request, secret))
}

fn verify(request: &str, secret: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let field = |name: &str| {
        let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    };
    let Some(wanted) = sign(secret, field("webhook-id"), field("webhook-timestamp"), body) else {
        return false;
    };
    field("webhook-signature").split(' ').any(|signature| signature == wanted)
}

fn sign(secret: &str, id: &str, timestamp: &str, body: &str) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_standard_verify() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let request = "POST / HTTP/1.1\r\nWebhook-Id: msg_p5jXN8AQM9LWM0D4loKWxJek\r\nwebhook-timestamp: 1614265330\r\n\
                       webhook-signature: v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n\r\n{\"test\": 2432232314}";
        assert!(verify(request, secret));
        assert!(!verify(&request.replace("2432232314", "1"), secret));
        assert!(!verify_all(&[], secret));
    }
}
