//! Operators on values that are defined. `None` is undefined: a wrong type, or no finite number.

use serde_json::Value;

use super::super::ast::{Binary, Unary};
use super::super::value;

impl Binary {
    /// Whether the operator's value is a truth.
    pub(in super::super) fn compares(self) -> bool {
        match self {
            Self::Equal
            | Self::NotEqual
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual => true,
            Self::BitOr
            | Self::BitXor
            | Self::BitAnd
            | Self::ShiftLeft
            | Self::ShiftRight
            | Self::ShiftRightUnsigned
            | Self::Concat
            | Self::Add
            | Self::Subtract
            | Self::Multiply
            | Self::Divide
            | Self::Remainder => false,
        }
    }
}

/// Equality is between all types; order is among numbers and among strings only.
pub(super) fn compare(operator: Binary, left: &Value, right: &Value) -> Option<bool> {
    match operator {
        Binary::Equal => return Some(value::equal(left, right)),
        Binary::NotEqual => return Some(!value::equal(left, right)),
        _ => {}
    }
    let order = match (left, right) {
        (Value::Number(_), Value::Number(_)) => value::number(left)?.partial_cmp(&value::number(right)?)?,
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ => return None,
    };
    match operator {
        Binary::Less => Some(order.is_lt()),
        Binary::LessOrEqual => Some(order.is_le()),
        Binary::Greater => Some(order.is_gt()),
        Binary::GreaterOrEqual => Some(order.is_ge()),
        _ => None,
    }
}

pub(super) fn binary(operator: Binary, left: &Value, right: &Value) -> Option<Value> {
    if operator.compares() {
        return compare(operator, left, right).map(Value::Bool);
    }
    if operator == Binary::Concat {
        return Some(Value::from(format!("{}{}", left.as_str()?, right.as_str()?)));
    }
    let (a, b) = (value::number(left)?, value::number(right)?);
    match operator {
        Binary::Add => value::from_number(a + b),
        Binary::Subtract => value::from_number(a - b),
        Binary::Multiply => value::from_number(a * b),
        Binary::Divide => value::from_number(a / b),
        Binary::Remainder => value::from_number(a % b),
        _ => bits(operator, whole(a)?, whole(b)?).map(Value::from),
    }
}

pub(super) fn unary(operator: Unary, operand: &Value) -> Option<Value> {
    match operator {
        Unary::Not => operand.as_bool().map(|truth| Value::Bool(!truth)),
        Unary::Minus => value::from_number(-value::number(operand)?),
        Unary::Plus => value::number(operand).and(Some(operand.clone())),
        Unary::Complement => whole(value::number(operand)?).map(|bits| Value::from(!bits)),
    }
}

/// Operators on bits: on 32 of them as long as both numbers fit, else on 64.
fn bits(operator: Binary, a: i64, b: i64) -> Option<i64> {
    match operator {
        Binary::BitAnd => return Some(a & b),
        Binary::BitOr => return Some(a | b),
        Binary::BitXor => return Some(a ^ b),
        _ => {}
    }
    // A shift by more than the width takes the count's lowest bits, as processors do.
    let count = u32::try_from(b.rem_euclid(64)).ok()?;
    if let (Ok(small), Ok(_)) = (i32::try_from(a), i32::try_from(b)) {
        let unsigned = u32::from_ne_bytes(small.to_ne_bytes());
        return match operator {
            Binary::ShiftLeft => Some(i64::from(small.wrapping_shl(count))),
            Binary::ShiftRight => Some(i64::from(small.wrapping_shr(count))),
            Binary::ShiftRightUnsigned => Some(i64::from(unsigned.wrapping_shr(count))),
            _ => None,
        };
    }
    match operator {
        Binary::ShiftLeft => Some(a.wrapping_shl(count)),
        Binary::ShiftRight => Some(a.wrapping_shr(count)),
        Binary::ShiftRightUnsigned => {
            let unsigned = u64::from_ne_bytes(a.to_ne_bytes()).wrapping_shr(count);
            Some(i64::from_ne_bytes(unsigned.to_ne_bytes()))
        }
        _ => None,
    }
}

fn whole(number: f64) -> Option<i64> {
    let limit = 2_f64.powi(63);
    if number.fract() != 0.0 || !(-limit..limit).contains(&number) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the range above")]
    Some(number as i64)
}
