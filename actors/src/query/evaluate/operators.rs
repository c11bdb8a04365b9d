//! Operators on values that are defined. `None` is undefined: a wrong type, or no finite number.

use serde_json::Value;

use super::super::ast::{Arithmetic, Binary, Bits, Comparison, Unary};
use super::super::value;

/// Equality is between all types; order is among numbers and among strings only.
pub(super) fn compare(operator: Comparison, left: &Value, right: &Value) -> Option<bool> {
    let order = || match (left, right) {
        (Value::Number(_), Value::Number(_)) => value::number(left)?.partial_cmp(&value::number(right)?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    };
    Some(match operator {
        Comparison::Equal => value::equal(left, right),
        Comparison::NotEqual => !value::equal(left, right),
        Comparison::Less => order()?.is_lt(),
        Comparison::LessOrEqual => order()?.is_le(),
        Comparison::Greater => order()?.is_gt(),
        Comparison::GreaterOrEqual => order()?.is_ge(),
    })
}

pub(super) fn binary(operator: Binary, left: &Value, right: &Value) -> Option<Value> {
    match operator {
        Binary::Compare(operator) => compare(operator, left, right).map(Value::Bool),
        Binary::Concat => Some(Value::from(format!("{}{}", left.as_str()?, right.as_str()?))),
        Binary::Compute(operator) => {
            let (left, right) = (value::number(left)?, value::number(right)?);
            value::from_number(match operator {
                Arithmetic::Add => left + right,
                Arithmetic::Subtract => left - right,
                Arithmetic::Multiply => left * right,
                Arithmetic::Divide => left / right,
                Arithmetic::Remainder => left % right,
            })
        }
        Binary::Bits(operator) => Some(Value::from(bits(operator, whole(left)?, whole(right)?))),
    }
}

pub(super) fn unary(operator: Unary, operand: &Value) -> Option<Value> {
    match operator {
        Unary::Not => operand.as_bool().map(|truth| Value::Bool(!truth)),
        Unary::Minus => value::from_number(-value::number(operand)?),
        Unary::Plus => value::number(operand).and(Some(operand.clone())),
        Unary::Complement => Some(Value::from(!whole(operand)?)),
    }
}

/// Operators on bits: shifts are on 32 of them as long as both numbers fit, else on 64. A shift by more
/// than the width takes the count's lowest bits, as processors do.
fn bits(operator: Bits, a: i64, b: i64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
    let count = b.rem_euclid(64) as u32;
    let small = i32::try_from(a).ok().filter(|_| i32::try_from(b).is_ok());
    match (operator, small) {
        (Bits::And, _) => a & b,
        (Bits::Or, _) => a | b,
        (Bits::Xor, _) => a ^ b,
        (Bits::Left, Some(a)) => i64::from(a.wrapping_shl(count)),
        (Bits::Left, None) => a.wrapping_shl(count),
        (Bits::Right, Some(a)) => i64::from(a.wrapping_shr(count)),
        (Bits::Right, None) => a.wrapping_shr(count),
        (Bits::RightUnsigned, Some(a)) => i64::from(a.cast_unsigned().wrapping_shr(count)),
        (Bits::RightUnsigned, None) => a.cast_unsigned().wrapping_shr(count).cast_signed(),
    }
}

fn whole(value: &Value) -> Option<i64> {
    let number = value::number(value)?;
    let limit = 2_f64.powi(63);
    if number.fract() != 0.0 || !(-limit..limit).contains(&number) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the range above")]
    Some(number as i64)
}
