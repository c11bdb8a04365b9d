//! Functions of numbers. Numbers are doubles; a result that is not finite is undefined.

use std::f64::consts::PI;

use serde_json::Value;

use super::arguments::Arguments;
use super::{Context, Row, row};
use crate::query::value::from_number;

/// Half a turn, in degrees.
const HALF_TURN: f64 = 180.0;

pub(super) const ROWS: &[Row] = &[
    row("ABS", (1, 1), |a, _| of(a, f64::abs)),
    row("ACOS", (1, 1), |a, _| of(a, f64::acos)),
    row("ASIN", (1, 1), |a, _| of(a, f64::asin)),
    row("ATAN", (1, 1), |a, _| of(a, f64::atan)),
    row("ATN2", (2, 2), |a, _| from_number(a.number(0)?.atan2(a.number(1)?))),
    row("CEILING", (1, 1), |a, _| of(a, f64::ceil)),
    row("COS", (1, 1), |a, _| of(a, f64::cos)),
    row("COT", (1, 1), |a, _| of(a, |x| 1.0 / x.tan())),
    row("DEGREES", (1, 1), |a, _| of(a, |x| HALF_TURN / PI * x)),
    row("EXP", (1, 1), |a, _| of(a, f64::exp)),
    row("FLOOR", (1, 1), |a, _| of(a, f64::floor)),
    row("LOG", (1, 2), log),
    row("LOG10", (1, 1), |a, _| of(a, f64::log10)),
    row("NumberBin", (1, 2), bin),
    row("PI", (0, 0), |_, _| from_number(PI)),
    row("POWER", (2, 2), |a, _| from_number(a.number(0)?.powf(a.number(1)?))),
    row("RADIANS", (1, 1), |a, _| of(a, |x| PI * x / HALF_TURN)),
    row("RAND", (0, 0), |_, context| from_number(random(context.seed))),
    row("ROUND", (1, 2), round),
    row("SIGN", (1, 1), |a, _| of(a, |x| if x == 0.0 { 0.0 } else { x.signum() })),
    row("SIN", (1, 1), |a, _| of(a, f64::sin)),
    row("SQRT", (1, 1), |a, _| of(a, f64::sqrt)),
    row("SQUARE", (1, 1), |a, _| of(a, |x| x * x)),
    row("TAN", (1, 1), |a, _| of(a, f64::tan)),
    row("TRUNC", (1, 1), |a, _| of(a, f64::trunc)),
];

fn of(arguments: &Arguments<'_>, function: fn(f64) -> f64) -> Option<Value> {
    from_number(function(arguments.number(0)?))
}

fn log(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let natural = arguments.number(0)?.ln();
    if arguments.len() == 1 {
        return from_number(natural);
    }
    from_number(natural / arguments.number(1)?.ln())
}

/// The multiple of the second argument at or below the first; above it when the bins are negative.
fn bin(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let number = arguments.number(0)?;
    let size = if arguments.len() > 1 { arguments.number(1)? } else { 1.0 };
    from_number((number / size).floor() * size)
}

/// Half away from zero, to this many digits behind the point; before it when they are negative.
fn round(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    /// No double has a digit further from the point.
    const MAX_DIGITS: i64 = 330;
    let number = arguments.number(0)?;
    let digits = arguments.integer_or(1, 0)?.clamp(-MAX_DIGITS, MAX_DIGITS);
    if digits == 0 {
        return from_number(number.round());
    }
    let scale = 10_f64.powi(i32::try_from(digits.abs()).ok()?);
    let rounded =
        if digits > 0 { (number * scale).round() / scale } else { (number / scale).round() * scale };
    // Where the scale leaves the range of doubles there is nothing to round, or all of it.
    match rounded.is_finite() {
        true => from_number(rounded),
        false if digits > 0 => from_number(number),
        false => from_number(0.0),
    }
}

/// A number from 0 up to 1, one for each seed (the finalizer of SplitMix64).
fn random(seed: u64) -> f64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    /// As many bits as a double is exact in.
    const BITS: u32 = 53;
    #[expect(clippy::cast_precision_loss, reason = "the shift leaves what a double holds")]
    let (drawn, all) = ((mixed >> (u64::BITS - BITS)) as f64, (1_u64 << BITS) as f64);
    drawn / all
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{FRAC_PI_2, PI, TAU};

    use serde_json::json;

    use super::random;
    use crate::query::functions::tests::{UNDEFINED, check};

    #[test]
    fn angles_turn_as_the_service_turns_them() {
        check(&[
            ("ACOS", json!([-1]), json!(PI)),
            ("ACOS", json!([1.1]), json!(UNDEFINED)),
            ("ASIN", json!([1]), json!(FRAC_PI_2)),
            ("ATAN", json!([-45.01]), json!(-1.5485826962062663)),
            ("ATN2", json!([35.175643, 129.44]), json!(0.265344532064832)),
            ("COS", json!([14.78]), json!(-0.5994654261946543)),
            ("COT", json!([124.1332]), json!(-0.040311998371148884)),
            ("COT", json!([0]), json!(UNDEFINED)),
            ("SIN", json!([0]), json!(0)),
            ("TAN", json!([0]), json!(0)),
            ("DEGREES", json!([FRAC_PI_2]), json!(90)),
            ("DEGREES", json!([PI]), json!(180)),
            ("DEGREES", json!([4.71238898038469]), json!(270)),
            ("DEGREES", json!([TAU]), json!(360)),
            ("RADIANS", json!([180]), json!(PI)),
            ("PI", json!([]), json!(PI)),
        ]);
    }

    #[test]
    fn powers_and_logarithms_outside_their_range_are_undefined() {
        check(&[
            ("POWER", json!([5, 5]), json!(3125)),
            ("POWER", json!([0, 2]), json!(0)),
            ("POWER", json!([null, 3]), json!(UNDEFINED)),
            ("POWER", json!([2, null]), json!(UNDEFINED)),
            ("POWER", json!([10, 309]), json!(UNDEFINED)),
            ("POWER", json!([-1, 0.5]), json!(UNDEFINED)),
            ("SQRT", json!([17]), json!(4.123105625617661)),
            ("SQRT", json!([25]), json!(5)),
            ("SQRT", json!([-1]), json!(UNDEFINED)),
            ("SQUARE", json!([-3]), json!(9)),
            ("SQUARE", json!([1e200]), json!(UNDEFINED)),
            ("EXP", json!([0]), json!(1)),
            ("EXP", json!([710]), json!(UNDEFINED)),
            ("LOG", json!([1]), json!(0)),
            ("LOG", json!([64, 2]), json!(6)),
            ("LOG", json!([0]), json!(UNDEFINED)),
            ("LOG", json!([-1]), json!(UNDEFINED)),
            ("LOG", json!([10, 1]), json!(UNDEFINED)),
            ("LOG", json!([10, UNDEFINED]), json!(UNDEFINED)),
            ("LOG10", json!([1000]), json!(3)),
        ]);
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        check(&[
            ("ROUND", json!([2.4]), json!(2)),
            ("ROUND", json!([2.6]), json!(3)),
            ("ROUND", json!([2.5]), json!(3)),
            ("ROUND", json!([-2.5]), json!(-3)),
            ("ROUND", json!([-2.4]), json!(-2)),
            ("ROUND", json!([-0.4]), json!(0)),
            ("ROUND", json!([2.345, 2]), json!(2.35)),
            ("ROUND", json!([-1.25, 1]), json!(-1.3)),
            ("ROUND", json!([1250, -2]), json!(1300)),
            ("ROUND", json!([1.5, 400]), json!(1.5)),
            ("ROUND", json!([1.5, -400]), json!(0)),
            ("ROUND", json!([1.5, 0.5]), json!(UNDEFINED)),
            ("CEILING", json!([123.45]), json!(124)),
            ("CEILING", json!([-45.72]), json!(-45)),
            ("CEILING", json!([-0.5]), json!(0)),
            ("FLOOR", json!([-45.72]), json!(-46)),
            ("TRUNC", json!([2.37]), json!(2)),
            ("TRUNC", json!([-2.78]), json!(-2)),
            ("TRUNC", json!([0.0000714]), json!(0)),
            ("SIGN", json!([-2]), json!(-1)),
            ("SIGN", json!([0]), json!(0)),
            ("SIGN", json!([2]), json!(1)),
            ("ABS", json!([-1.5]), json!(1.5)),
            ("ABS", json!(["-1.5"]), json!(UNDEFINED)),
            ("NumberBin", json!([37.752, -100]), json!(100)),
            ("NumberBin", json!([37.752, 10]), json!(30)),
            ("NumberBin", json!([37.752]), json!(37)),
            ("NumberBin", json!([37.752, 0]), json!(UNDEFINED)),
            ("NumberBin", json!([37.752, 0.1]), json!(37.7)),
            ("NumberBin", json!([37.752, 0.01]), json!(37.75)),
            ("NumberBin", json!([155.23478, 0.01]), json!(155.23)),
        ]);
    }

    #[test]
    fn every_seed_has_a_number_from_zero_up_to_one() {
        let numbers: Vec<f64> = (0..1_000).map(random).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        let mean = numbers.iter().sum::<f64>() / 1_000.0;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        assert_eq!(random(1).to_bits(), random(1).to_bits());
    }
}
