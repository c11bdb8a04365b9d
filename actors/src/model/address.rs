//! Where a document lives: container, tenant, partition key, id; and the bytes that sort like it.
//!
//! Invariant: two different addresses never encode to the same bytes, and all documents of a
//! partition are one contiguous range of keys.

use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;
use serde_json::Value;

use super::ids::{DocumentId, Name, ShardId, TenantId};

/// Slots that partitions hash into. Fixed for ever, so that shards can be split without rehashing.
const SLOTS: u64 = 4_096;
/// Longest string in a partition key, in bytes.
pub const MAX_KEY_STRING: usize = 2_048;

/// What follows an escaped string: less than every byte that could continue it.
pub(crate) const STRING_END: [u8; 2] = [0x00, 0x01];

const END: u8 = 0x00;
const SHARED: u8 = 0x01;
const ISOLATED: u8 = 0x02;

/// One component of a partition key. `Undefined` stands for a property that is not there.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyPart {
    /// The document has no such property.
    Undefined,
    /// JSON `null`.
    Null,
    /// JSON `true` or `false`.
    Bool(bool),
    /// Any JSON number, as an IEEE 754 double.
    Number(f64),
    /// A string of at most [`MAX_KEY_STRING`] bytes.
    String(String),
}

/// Why a value cannot be a partition key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPartitionKey {
    /// An object or an array.
    #[error("a partition key is a string, a number, a boolean or null, not an object or an array")]
    Type,
    /// A string that is too long.
    #[error("a partition key has at most {MAX_KEY_STRING} bytes, this one has {0}")]
    Length(usize),
}

impl KeyPart {
    /// A key from a path segment or a literal.
    pub fn string(text: &str) -> Result<Self, InvalidPartitionKey> {
        if text.len() > MAX_KEY_STRING {
            return Err(InvalidPartitionKey::Length(text.len()));
        }
        Ok(Self::String(text.to_owned()))
    }

    /// A key from a property's value.
    pub fn from_json(value: &Value) -> Result<Self, InvalidPartitionKey> {
        match value {
            Value::Null => Ok(Self::Null),
            Value::Bool(b) => Ok(Self::Bool(*b)),
            Value::Number(n) => Ok(Self::Number(n.as_f64().ok_or(InvalidPartitionKey::Type)?)),
            Value::String(s) => Self::string(s),
            Value::Array(_) | Value::Object(_) => Err(InvalidPartitionKey::Type),
        }
    }

    /// The JSON value; `{}` stands for undefined, as on Cosmos' wire.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Undefined => Value::Object(serde_json::Map::new()),
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Number(n) => number(*n),
            Self::String(s) => Value::String(s.clone()),
        }
    }

    /// The number, from 0, of the bucket that this value falls into. The same for ever.
    #[must_use]
    pub fn bucket(&self, buckets: NonZeroU16) -> Self {
        let mut bytes = Vec::with_capacity(32);
        self.encode(&mut bytes);
        let bucket = twox_hash::XxHash3_64::oneshot(&bytes) % u64::from(buckets.get());
        Self::Number(u16::try_from(bucket).unwrap_or_default().into())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Undefined => out.push(0x01),
            Self::Null => out.push(0x02),
            Self::Bool(false) => out.push(0x03),
            Self::Bool(true) => out.push(0x04),
            Self::Number(n) => {
                out.push(0x05);
                out.extend_from_slice(&sortable(*n).to_be_bytes());
            }
            Self::String(s) => {
                out.push(0x06);
                escape(s, out);
                out.extend_from_slice(&STRING_END);
            }
        }
    }

    /// Reads one part, or `None` at the end marker or on bytes that this version never writes.
    fn decode(input: &mut &[u8]) -> Option<Self> {
        let (&tag, rest) = input.split_first()?;
        *input = rest;
        match tag {
            0x01 => Some(Self::Undefined),
            0x02 => Some(Self::Null),
            0x03 => Some(Self::Bool(false)),
            0x04 => Some(Self::Bool(true)),
            0x05 => {
                let (bits, rest) = input.split_first_chunk::<8>()?;
                *input = rest;
                Some(Self::Number(unsortable(u64::from_be_bytes(*bits))))
            }
            0x06 => decode_string(input).map(Self::String),
            _ => None,
        }
    }
}

/// Bytes of a string in which a zero is never followed by [`STRING_END`]'s second byte, in the same order.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + STRING_END.len());
    for &byte in text.as_bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
}

fn decode_string(input: &mut &[u8]) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        if byte != 0 {
            text.push(byte);
            continue;
        }
        let (&mark, rest) = input.split_first()?;
        *input = rest;
        match mark {
            0xFF => text.push(0),
            0x01 => return String::from_utf8(text).ok(),
            _ => return None,
        }
    }
}

fn number(n: f64) -> Value {
    // 2^53: up to here a double holds every integer, and users expect `7`, not `7.0`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "an integer below 2^53 fits")]
        return Value::from(n as i64);
    }
    serde_json::Number::from_f64(n).map_or(Value::Null, Value::Number)
}

/// Bits of a double that compare, unsigned, as the numbers do. Minus zero is zero.
pub(crate) fn sortable(n: f64) -> u64 {
    let bits = if n == 0.0 { 0 } else { n.to_bits() };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn unsortable(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}

/// A logical partition: everything in it lives in one shard and shares one actor.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionAddress {
    /// The container's name.
    pub container: Name,
    /// The owner, in an isolated container; `None` in a shared one.
    pub tenant: Option<TenantId>,
    /// The partition key's value, one part for each declared path.
    pub key: Vec<KeyPart>,
}

impl PartitionAddress {
    /// The prefix of the keys of all documents of a container.
    pub fn container_prefix(container: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(container.len() + 1);
        out.extend_from_slice(container.as_bytes());
        out.push(END);
        out
    }

    /// The prefix of the keys of all documents whose partition keys begin with `key`, in the container
    /// of this address.
    pub fn encode_prefix(&self) -> Vec<u8> {
        let mut out = self.encode().0.to_vec();
        // Without the end marker the bytes are those of every longer key too.
        out.pop();
        out
    }

    /// The prefix of the keys of all documents of this partition.
    pub fn encode(&self) -> EncodedPartition {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(self.container.as_bytes());
        out.push(END);
        match &self.tenant {
            None => out.push(SHARED),
            Some(tenant) => {
                out.push(ISOLATED);
                out.extend_from_slice(tenant.as_str().as_bytes());
                out.push(END);
            }
        }
        for part in &self.key {
            part.encode(&mut out);
        }
        out.push(END);
        EncodedPartition(out.into())
    }

    /// Reads the address back from the front of a document's key; also returns what follows it.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (container, rest) = until_end(bytes)?;
        let (&tenancy, rest) = rest.split_first()?;
        let (tenant, mut rest) = match tenancy {
            SHARED => (None, rest),
            ISOLATED => {
                let (name, rest) = until_end(rest)?;
                (Some(TenantId::new(name).ok()?), rest)
            }
            _ => return None,
        };
        let mut key = Vec::with_capacity(1);
        while *rest.first()? != END {
            key.push(KeyPart::decode(&mut rest)?);
        }
        let rest = rest.get(1..)?;
        Some((Self { container: container.into(), tenant, key }, rest))
    }

    /// The partition key as the JSON array of its parts.
    pub fn key_json(&self) -> Value {
        Value::Array(self.key.iter().map(KeyPart::to_json).collect())
    }

    /// The partition key as one text, parts joined by `/`: what an event's subject begins with.
    pub fn key_text(&self) -> String {
        let mut text = String::new();
        for (i, part) in self.key.iter().enumerate() {
            if i > 0 {
                text.push('/');
            }
            match part {
                KeyPart::String(s) => text.push_str(s),
                other @ (KeyPart::Undefined | KeyPart::Null | KeyPart::Bool(_) | KeyPart::Number(_)) => {
                    text.push_str(&other.to_json().to_string());
                }
            }
        }
        text
    }
}

/// How many bytes at the front of a document's key are its partition; `None` on other bytes.
pub fn partition_len(key: &[u8]) -> Option<usize> {
    let name = |bytes: &[u8]| Some(bytes.iter().position(|&byte| byte == END)? + 1);
    let mut at = name(key)?;
    let tenancy = *key.get(at)?;
    at += 1;
    if tenancy == ISOLATED {
        at += name(key.get(at..)?)?;
    }
    loop {
        let tag = *key.get(at)?;
        at += 1;
        match tag {
            END => return Some(at),
            0x01..=0x04 => {}
            0x05 => at += 8,
            0x06 => {
                // A zero inside a string is followed by another mark than the one at its end.
                while key.get(at..at + 2)? != [0x00, 0x01] {
                    at += if *key.get(at)? == 0 { 2 } else { 1 };
                }
                at += 2;
            }
            _ => return None,
        }
    }
}

fn until_end(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|&b| b == END)?;
    let (name, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(name).ok()?, rest.get(1..)?))
}

/// The encoded form of a [`PartitionAddress`]: identity of a partition, prefix of its keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EncodedPartition(Bytes);

impl EncodedPartition {
    /// Wraps bytes that were made by [`PartitionAddress::encode`].
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The container's name.
    pub fn container(&self) -> &str {
        let (container, _) = self.split_container();
        container.strip_suffix(&[END]).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// The bytes up to the end of the container's name, and what follows: tenant and key.
    pub fn split_container(&self) -> (&[u8], &[u8]) {
        let end = self.0.iter().position(|&byte| byte == END).map_or(self.0.len(), |at| at + 1);
        self.0.split_at(end)
    }

    /// The partition and the id that a document's key is made of; `None` on other bytes.
    pub fn split_document(key: &Bytes) -> Option<(Self, DocumentId)> {
        let end = partition_len(key)?;
        let id = DocumentId::new(std::str::from_utf8(key.get(end..)?).ok()?).ok()?;
        Some((Self(key.slice(..end)), id))
    }

    /// Key of one document of this partition.
    pub fn document(&self, id: &DocumentId) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.0.len() + id.as_str().len());
        key.extend_from_slice(&self.0);
        key.extend_from_slice(id.as_str().as_bytes());
        key
    }

    /// The shard that holds this partition when there are `shards` of them.
    pub fn shard(&self, shards: u16) -> ShardId {
        let slot = twox_hash::XxHash3_64::oneshot(&self.0) % SLOTS;
        let shard = slot % u64::from(shards.max(1));
        ShardId(u16::try_from(shard).unwrap_or(0))
    }
}

impl fmt::Debug for EncodedPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PartitionAddress::decode(&self.0) {
            Some((address, _)) => write!(f, "{}/{}", address.container, address.key_text()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = KeyPart> {
        prop_oneof![
            Just(KeyPart::Undefined),
            Just(KeyPart::Null),
            any::<bool>().prop_map(KeyPart::Bool),
            (-1e300f64..1e300).prop_map(KeyPart::Number),
            proptest::collection::vec(prop_oneof![Just('\0'), Just('a'), any::<char>()], 0..8)
                .prop_map(|chars| KeyPart::String(chars.into_iter().collect())),
        ]
    }

    fn address() -> impl Strategy<Value = PartitionAddress> {
        let tenant = proptest::option::of("[a-z]{1,3}").prop_map(|t| t.map(|t| TenantId::new(&t).unwrap()));
        ("[a-z]{1,3}", tenant, proptest::collection::vec(part(), 1..4)).prop_map(
            |(container, tenant, key)| PartitionAddress { container: container.into(), tenant, key },
        )
    }

    proptest! {
        #[test]
        fn an_address_survives_its_encoding(address in address(), id in "[a-z]{1,5}") {
            let key = address.encode().document(&DocumentId::new(&id).unwrap());
            let (back, rest) = PartitionAddress::decode(&key).unwrap();
            prop_assert_eq!(back, address);
            prop_assert_eq!(rest, id.as_bytes());
            prop_assert_eq!(partition_len(&key), Some(key.len() - id.len()));
        }

        #[test]
        fn no_partition_is_a_prefix_of_another(a in address(), b in address()) {
            if a != b {
                prop_assert!(!a.encode().as_bytes().starts_with(b.encode().as_bytes()));
            }
        }

        #[test]
        fn numbers_sort_by_their_bytes(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            let order = sortable(a).cmp(&sortable(b));
            prop_assert_eq!(order, a.partial_cmp(&b).unwrap());
        }

        #[test]
        fn arbitrary_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let decoded = PartitionAddress::decode(&bytes);
            prop_assert!(decoded.is_none() || partition_len(&bytes).is_some());
        }
    }
}
