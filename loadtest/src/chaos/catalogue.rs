//! Stands between the contract of events and the code that plays it: every scenario, with what is expected of the server.
//! Invariant: one row for each scenario of the contract, in its order; what is expected stands here and not in the code.

use super::rows::{
    answers, batches, changes, clocks, crashes, crowds, disks, handshakes, names, publishing, pull, recovery,
    schedules, sockets, storms, tls,
};
use super::{Row, Weight};

macro_rules! row {
    ($number:literal, $weight:ident, $quick:literal, $needs:literal, $name:literal, $expected:literal, $play:path) => {
        Row {
            number: $number,
            name: $name,
            expected: $expected,
            needs: $needs,
            weight: Weight::$weight,
            quick: $quick,
            play: |context| Box::pin($play(context)),
        }
    };
}

/// The rows. Where a schedule is scaled, the expectation is that of the unscaled one.
pub(super) const ROWS: [Row; 52] = [
    row!(
        1,
        Light,
        false,
        "",
        "connection never completes (SYN black hole)",
        "fails TimedOut at the connect limit, its place is freed",
        sockets::black_hole
    ),
    row!(
        2,
        Light,
        true,
        "",
        "connection refused",
        "fails SocketError; next attempt after 10 s or more; probation 30 s after 10 in a row",
        sockets::refused
    ),
    row!(
        3,
        Light,
        false,
        "",
        "accepts and never answers",
        "fails TimedOut at the deadline ± 0.5 s; the window shrinks to 1",
        sockets::never_answers
    ),
    row!(
        4,
        Light,
        false,
        "",
        "header drips byte by byte",
        "the same deadline over all",
        sockets::slow_header
    ),
    row!(
        5,
        Light,
        true,
        "",
        "200, then a body that never ends",
        "success; at most 1 s of it is read, the connection is closed and not used again, the place is freed",
        sockets::endless_body
    ),
    row!(
        6,
        Light,
        false,
        "",
        "10 GB body, gzip bomb, 1 MB header",
        "200 is a success whatever follows, read up to a cap; the header is a SocketError; RSS flat",
        sockets::floods
    ),
    row!(
        7,
        Light,
        true,
        "",
        "reset before the status",
        "fails SocketError; tried again, same id",
        sockets::reset_before_status
    ),
    row!(
        8,
        Light,
        true,
        "",
        "reset in the body after 200",
        "success: the status was received",
        sockets::reset_in_body
    ),
    row!(
        9,
        Light,
        false,
        "",
        "kept connection closed while a request is sent",
        "not counted: sent once more on a new connection while no byte of an answer has come",
        sockets::stale_connection
    ),
    row!(
        10,
        Light,
        false,
        "",
        "5xx burst, then recovery",
        "schedule kept, with jitter; all delivered; no storm: peak at most 2 × steady",
        recovery::burst
    ),
    row!(
        11,
        Light,
        false,
        "",
        "flapping: half of all attempts fail",
        "the breaker does not latch open; everything is delivered; attempts within the limit",
        recovery::flapping
    ),
    row!(
        12,
        Light,
        false,
        "",
        "503, and 503 with Retry-After",
        "30 s or more; what Retry-After asks or more; TTL is tested when due",
        answers::unavailable
    ),
    row!(
        13,
        Light,
        false,
        "",
        "429 with Retry-After: seconds, date, garbage, 10⁹",
        "honoured up to an hour; garbage is ignored",
        answers::too_many
    ),
    row!(
        14,
        Light,
        true,
        "",
        "400, 401, 403, 413",
        "one attempt, then dead-lettered with the reason",
        answers::hopeless
    ),
    row!(15, Light, false, "", "404; 408", "5 minutes or more; 2 minutes or more", answers::slow_statuses),
    row!(
        16,
        Light,
        false,
        "410 Gone that disables",
        "410 Gone",
        "the subscription is disabled, what is pending is dead-lettered",
        answers::gone
    ),
    row!(
        17,
        Light,
        true,
        "",
        "301, 302, 307, 308, also to 169.254.169.254",
        "failure, never followed",
        answers::redirects
    ),
    row!(
        18,
        Light,
        true,
        "",
        "200 to 204 against 205, 206, 226, 304",
        "the first five succeed, the others fail",
        answers::successes
    ),
    row!(
        19,
        Light,
        false,
        "",
        "100, 102, 103, then 200; interim answers without end",
        "interim answers are skipped; without end they meet the deadline",
        answers::interim
    ),
    row!(
        20,
        Light,
        true,
        "",
        "malformed HTTP, two lengths, wrong length",
        "fails SocketError; the connection is discarded",
        answers::malformed
    ),
    row!(
        21,
        Light,
        false,
        "openssl",
        "TLS: expired, self-signed, wrong host, TLS 1.0, plain text",
        "fails SocketError with a detail `tls:`; a trusted authority is accepted",
        tls::refusals
    ),
    row!(
        22,
        Light,
        false,
        "openssl",
        "certificate changed while running",
        "the next handshake works; nothing is pinned",
        tls::rotation
    ),
    row!(
        23,
        Light,
        false,
        "root, port 53 of a loopback address",
        "NXDOMAIN, SERVFAIL, a silent name server",
        "fails ResolutionError; other names are resolved meanwhile",
        names::failures
    ),
    row!(
        24,
        Light,
        false,
        "root, port 53 of a loopback address",
        "a name that changes between check and connection",
        "the address that was vetted is the one that is used; else Forbidden",
        names::rebinding
    ),
    row!(
        25,
        Light,
        true,
        "",
        "odd spellings of private addresses",
        "refused when declared, unless allowed",
        names::spellings
    ),
    row!(
        26,
        Light,
        false,
        "root, port 53 of a loopback address",
        "several addresses, some private",
        "only permitted ones are used; none: Forbidden",
        names::mixed
    ),
    row!(
        27,
        Light,
        false,
        "handshake: event_grid",
        "validation: wrong echo, 202, late, none",
        "no event before the endpoint has proved itself",
        handshakes::validation
    ),
    row!(
        28,
        Light,
        false,
        "handshake: cloudevents",
        "OPTIONS without Allowed-Origin, with *, with a rate of 60",
        "not validated; validated; at most 60 a minute",
        handshakes::options
    ),
    row!(
        29,
        Heavy,
        false,
        "",
        "kill -9 in the middle of a fan-out to 1,000",
        "each receives it, duplicates within the window, none lost",
        crashes::fan_out
    ),
    row!(
        30,
        Light,
        true,
        "",
        "kill -9 after 2xx, before the commit",
        "exactly one duplicate, with the same id",
        crashes::after_the_answer
    ),
    row!(
        31,
        Heavy,
        false,
        "",
        "50 kills -9 at random, under load",
        "published = delivered ∪ dead-lettered ∪ pending",
        crashes::fifty
    ),
    row!(
        32,
        Heavy,
        false,
        "",
        "restart with a million due retries",
        "spread start, bounded RSS, new events' p99 under 1 s meanwhile",
        storms::due_retries
    ),
    row!(
        33,
        Light,
        false,
        "libfaketime",
        "clock set forward and back",
        "no storm; no attempt before its step",
        clocks::steps
    ),
    row!(
        34,
        Light,
        false,
        "root for a small tmpfs",
        "disk full",
        "publishing is refused with 503 or 507, never acknowledged; unaided recovery when there is room",
        disks::full
    ),
    row!(
        35,
        Light,
        false,
        "",
        "torn last record; flipped bit in a segment",
        "the tail is dropped, nothing acknowledged is lost; the flip is found and not served",
        disks::damage
    ),
    row!(
        36,
        Light,
        false,
        "dead_letter: blob",
        "store of dead letters not writable",
        "kept and tried again until it is",
        disks::unwritable_store
    ),
    row!(
        37,
        Light,
        false,
        "",
        "subscription deleted with events pending",
        "nothing is sent any more, also after it is made again",
        changes::deleted
    ),
    row!(
        38,
        Light,
        false,
        "",
        "filter and endpoint changed with events pending",
        "old matches go to the new endpoint, the new filter holds for later events",
        changes::redirected
    ),
    row!(
        39,
        Light,
        false,
        "sign:",
        "signing secret changed between retries",
        "signed with new and old; id the same, timestamp new",
        changes::rotated
    ),
    row!(
        40,
        Light,
        false,
        "",
        "poison event",
        "others are delivered, it ends dead-lettered; in order only its key waits",
        recovery::poison
    ),
    row!(
        41,
        Light,
        false,
        "batch:",
        "batch with one bad event",
        "the whole batch is tried again",
        batches::poisoned
    ),
    row!(
        42,
        Heavy,
        false,
        "",
        "1 hung, 1 busy, 98 quiet subscriptions",
        "quiet p99 at most 2 × that without the hung one, which holds at most its window",
        crowds::hung
    ),
    row!(
        43,
        Heavy,
        false,
        "",
        "1,000 failing subscriptions beside one of another tenant",
        "the other's p99 at most doubles",
        crowds::failing
    ),
    row!(
        44,
        Heavy,
        false,
        "",
        "10,000 subscriptions, one event",
        "all within 5 s; memory does not hold 10,000 copies of it",
        crowds::wide
    ),
    row!(
        45,
        Light,
        false,
        "custom topics",
        "an SDK publishes the same again after 503 or timeout",
        "one logical event",
        publishing::repeated
    ),
    row!(
        46,
        Light,
        false,
        "queues",
        "pull: lock expiry, renew, late and double acknowledge, release delays",
        "redelivered +1; extended; TokenLost; delays kept; others 400",
        pull::locks
    ),
    row!(
        47,
        Light,
        false,
        "queues",
        "pull: 100 receivers, one event",
        "one gets it, the others nothing; a receiver that vanishes lets the lock expire",
        pull::receivers
    ),
    row!(
        48,
        Light,
        false,
        "",
        "TTL 30 min, at most 10 attempts, always 500",
        "6 attempts at 0, 10 s, 40 s, 1:40, 6:40, 16:40; TimeToLiveExceeded",
        schedules::half_an_hour
    ),
    row!(
        49,
        Light,
        false,
        "",
        "TTL 24 h, at most 30 attempts, always 500",
        "11 attempts, the last at 22 h 46:40; TimeToLiveExceeded",
        schedules::a_day
    ),
    row!(
        50,
        Light,
        false,
        "custom topics",
        "1 MB, 1 MB + 1, 5,001 in a batch, empty batch, an id twice",
        "200; 413; 413 or 400; 200; one event for each id",
        publishing::sizes
    ),
    row!(
        51,
        Light,
        false,
        "custom topics with hop counts",
        "a subscriber publishes back to its topic",
        "cut at the limit with the reason LoopDetected",
        publishing::loops
    ),
    row!(
        52,
        Light,
        false,
        "a limit of publish lag",
        "router slower than publishers",
        "429 with Retry-After once the lag is passed; memory bounded",
        publishing::back_pressure
    ),
];
