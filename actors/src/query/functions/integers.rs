//! Functions of 64-bit integers. They wrap around where the result does not fit, and are undefined for
//! a number with a fraction.

use serde_json::Value;

use super::arguments::Arguments;
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    row("IntAdd", (2, 2), |a, _| of(a, |x, y| Some(x.wrapping_add(y)))),
    row("IntSub", (2, 2), |a, _| of(a, |x, y| Some(x.wrapping_sub(y)))),
    row("IntMul", (2, 2), |a, _| of(a, |x, y| Some(x.wrapping_mul(y)))),
    row("IntDiv", (2, 2), |a, _| of(a, |x, y| (y != 0).then(|| x.wrapping_div(y)))),
    row("IntMod", (2, 2), |a, _| of(a, |x, y| (y != 0).then(|| x.wrapping_rem(y)))),
    row("IntBitAnd", (2, 2), |a, _| of(a, |x, y| Some(x & y))),
    row("IntBitOr", (2, 2), |a, _| of(a, |x, y| Some(x | y))),
    row("IntBitXor", (2, 2), |a, _| of(a, |x, y| Some(x ^ y))),
    row("IntBitNot", (1, 1), |a, _| Some(Value::from(!a.integer(0)?))),
    row("IntBitLeftShift", (2, 2), |a, _| of(a, |x, y| x.checked_shl(u32::try_from(y).ok()?))),
    // The sign is kept.
    row("IntBitRightShift", (2, 2), |a, _| of(a, |x, y| x.checked_shr(u32::try_from(y).ok()?))),
];

fn of(arguments: &Arguments<'_>, function: fn(i64, i64) -> Option<i64>) -> Option<Value> {
    function(arguments.integer(0)?, arguments.integer(1)?).map(Value::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::query::functions::tests::{UNDEFINED, check};

    #[test]
    fn integers_wrap_around_and_refuse_fractions() {
        check(&[
            ("IntMul", json!([5, 2]), json!(10)),
            ("IntMul", json!([5, -2]), json!(-10)),
            ("IntMul", json!([-5, -2]), json!(10)),
            ("IntMul", json!([5, 0]), json!(0)),
            ("IntMul", json!([5, 0.5]), json!(UNDEFINED)),
            ("IntMul", json!([5.0, 2.0]), json!(10)),
            ("IntMul", json!([i64::MAX, 2]), json!(-2)),
            ("IntAdd", json!([20, 10]), json!(30)),
            ("IntAdd", json!([i64::MAX, 1]), json!(i64::MIN)),
            ("IntAdd", json!(["20", 10]), json!(UNDEFINED)),
            ("IntAdd", json!([u64::MAX, 10]), json!(UNDEFINED)),
            ("IntSub", json!([25, 30]), json!(-5)),
            ("IntDiv", json!([-7, 2]), json!(-3)),
            ("IntDiv", json!([7, 0]), json!(UNDEFINED)),
            ("IntDiv", json!([i64::MIN, -1]), json!(i64::MIN)),
            ("IntMod", json!([-12, 5]), json!(-2)),
            ("IntMod", json!([12, 0]), json!(UNDEFINED)),
            ("IntBitAnd", json!([15, 25]), json!(9)),
            ("IntBitOr", json!([56, 100]), json!(124)),
            ("IntBitXor", json!([56, 100]), json!(92)),
            ("IntBitNot", json!([65]), json!(-66)),
            ("IntBitNot", json!([1.5]), json!(UNDEFINED)),
            ("IntBitLeftShift", json!([16, 4]), json!(256)),
            ("IntBitLeftShift", json!([16, 64]), json!(UNDEFINED)),
            ("IntBitLeftShift", json!([16, -1]), json!(UNDEFINED)),
            ("IntBitRightShift", json!([16, 4]), json!(1)),
            ("IntBitRightShift", json!([-16, 4]), json!(-1)),
        ]);
    }
}
