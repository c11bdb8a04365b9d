//! Dates and times, with what the service answers.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Moment;
use crate::query::functions::tests::{UNDEFINED, call, check};

const MOMENT: &str = "2016-05-29T08:30:00.1301617";

#[test]
fn a_time_is_made_of_its_parts_and_taken_apart() {
    check(&[
        ("DateTimeFromParts", json!([2017, 4, 20]), json!("2017-04-20T00:00:00.0000000Z")),
        (
            "DateTimeFromParts",
            json!([2017, 4, 20, 13, 15, 20, 3_456_789]),
            json!("2017-04-20T13:15:20.3456789Z"),
        ),
        ("DateTimeFromParts", json!([2017, 4, 20, 13, 15]), json!("2017-04-20T13:15:00.0000000Z")),
        ("DateTimeFromParts", json!([-2000, -1, -1]), json!(UNDEFINED)),
        ("DateTimeFromParts", json!([2017, 2, 29]), json!(UNDEFINED)),
        ("DateTimeFromParts", json!([0, 1, 1]), json!(UNDEFINED)),
        ("DateTimeFromParts", json!([2017, 1, 1, 24]), json!(UNDEFINED)),
        ("DateTimeFromParts", json!([2017, 1, 1, 0, 0, 60]), json!(UNDEFINED)),
        ("DateTimeFromParts", json!([2017, 1, 1, 0, 0, 0, 10_000_000]), json!(UNDEFINED)),
        ("DateTimeFromParts", json!([2017, 1, 1, UNDEFINED]), json!(UNDEFINED)),
        ("DateTimePart", json!(["yyyy", MOMENT]), json!(2016)),
        ("DateTimePart", json!(["mm", MOMENT]), json!(5)),
        ("DateTimePart", json!(["dd", MOMENT]), json!(29)),
        ("DateTimePart", json!(["hh", MOMENT]), json!(8)),
        ("DateTimePart", json!(["mi", MOMENT]), json!(30)),
        ("DateTimePart", json!(["ss", MOMENT]), json!(0)),
        ("DateTimePart", json!(["ms", MOMENT]), json!(130)),
        ("DateTimePart", json!(["mcs", MOMENT]), json!(130_161)),
        ("DateTimePart", json!(["NS", MOMENT]), json!(130_161_700)),
        ("DateTimePart", json!(["week", MOMENT]), json!(UNDEFINED)),
        ("YEAR", json!([MOMENT]), json!(2016)),
        ("MONTH", json!([MOMENT]), json!(5)),
        ("DAY", json!([MOMENT]), json!(29)),
        ("DAY", json!(["0001-01-01"]), json!(1)),
    ]);
}

#[test]
fn times_are_counted_from_the_unix_epoch() {
    check(&[
        ("DateTimeToTicks", json!(["2015-05-19T12:00:00.0000000"]), json!(14_320_368_000_000_000_i64)),
        ("DateTimeToTimestamp", json!(["2015-05-19T12:00:00.0000000"]), json!(1_432_036_800_000_i64)),
        ("DateTimeToTimestamp", json!(["1969-12-31T23:59:59.9999999Z"]), json!(-1)),
        ("TicksToDateTime", json!([15_973_607_943_002_652_i64]), json!("2020-08-13T23:19:54.3002652Z")),
        ("TicksToDateTime", json!([0]), json!("1970-01-01T00:00:00.0000000Z")),
        ("TicksToDateTime", json!([-116_444_736_000_000_000_i64]), json!("1601-01-01T00:00:00.0000000Z")),
        ("TicksToDateTime", json!([i64::MAX]), json!(UNDEFINED)),
        ("TicksToDateTime", json!([0.5]), json!(UNDEFINED)),
        ("TimestampToDateTime", json!([1_597_360_794_300_i64]), json!("2020-08-13T23:19:54.3000000Z")),
        ("TimestampToDateTime", json!([-11_644_473_600_000_i64]), json!("1601-01-01T00:00:00.0000000Z")),
        ("TimestampToDateTime", json!([i64::MAX]), json!(UNDEFINED)),
        ("GetCurrentDateTime", json!([]), json!("2020-08-13T23:19:54.3000000Z")),
        ("GetCurrentDateTimeStatic", json!([]), json!("2020-08-13T23:19:54.3000000Z")),
        ("GetCurrentTicks", json!([]), json!(15_973_607_943_000_000_i64)),
        ("GetCurrentTicksStatic", json!([]), json!(15_973_607_943_000_000_i64)),
        ("GetCurrentTimestamp", json!([]), json!(1_597_360_794_300_i64)),
        ("GetCurrentTimestampStatic", json!([]), json!(1_597_360_794_300_i64)),
    ]);
}

#[test]
fn times_are_added_to_with_the_calendar() {
    let start = "2020-07-03T00:00:00.0000000";
    check(&[
        ("DateTimeAdd", json!(["yyyy", 1, start]), json!("2021-07-03T00:00:00.0000000Z")),
        ("DateTimeAdd", json!(["mm", -2, start]), json!("2020-05-03T00:00:00.0000000Z")),
        ("DateTimeAdd", json!(["mm", -7, start]), json!("2019-12-03T00:00:00.0000000Z")),
        ("DateTimeAdd", json!(["dd", -3, start]), json!("2020-06-30T00:00:00.0000000Z")),
        ("DateTimeAdd", json!(["hour", 25, start]), json!("2020-07-04T01:00:00.0000000Z")),
        ("DateTimeAdd", json!(["ns", 1_234, start]), json!("2020-07-03T00:00:00.0000012Z")),
        ("DateTimeAdd", json!(["month", 1, "2020-01-31"]), json!("2020-02-29T00:00:00.0000000Z")),
        ("DateTimeAdd", json!(["yy", -1, "2020-02-29T12:00:00Z"]), json!("2019-02-28T12:00:00.0000000Z")),
        ("DateTimeAdd", json!(["yyyy", 8_000, start]), json!(UNDEFINED)),
        ("DateTimeAdd", json!(["yyyy", i64::MIN, start]), json!(UNDEFINED)),
        ("DateTimeAdd", json!(["dd", i64::MAX, start]), json!(UNDEFINED)),
        ("DateTimeAdd", json!(["dd", 0.5, start]), json!(UNDEFINED)),
        ("DateTimeAdd", json!(["dd", 1, "yesterday"]), json!(UNDEFINED)),
    ]);
}

#[test]
fn a_difference_counts_boundaries() {
    let (early, late) = ("2018-03-05T05:00:00.0000000", "2019-02-04T16:00:00.0000000");
    check(&[
        ("DateTimeDiff", json!(["yyyy", early, late]), json!(1)),
        ("DateTimeDiff", json!(["mm", early, late]), json!(11)),
        ("DateTimeDiff", json!(["dd", early, late]), json!(336)),
        ("DateTimeDiff", json!(["hh", early, late]), json!(8_075)),
        ("DateTimeDiff", json!(["mi", early, late]), json!(484_500)),
        ("DateTimeDiff", json!(["ns", early, late]), json!(29_070_000_000_000_000_i64)),
        ("DateTimeDiff", json!(["dd", late, early]), json!(-336)),
        ("DateTimeDiff", json!(["yyyy", "2019-12-31T23:59:59Z", "2020-01-01"]), json!(1)),
        ("DateTimeDiff", json!(["ns", "0001-01-01", "9999-01-01"]), json!(UNDEFINED)),
        ("DateTimeDiff", json!(["dd", early, null]), json!(UNDEFINED)),
    ]);
}

#[test]
fn bins_start_at_the_epoch_or_where_they_are_told_to() {
    let time = "2021-01-08T18:35:00.0000000";
    check(&[
        ("DateTimeBin", json!([time, "dd"]), json!("2021-01-08T00:00:00.0000000Z")),
        ("DateTimeBin", json!([time, "hh"]), json!("2021-01-08T18:00:00.0000000Z")),
        ("DateTimeBin", json!([time, "ss"]), json!("2021-01-08T18:35:00.0000000Z")),
        ("DateTimeBin", json!([time, "hh", 5]), json!("2021-01-08T15:00:00.0000000Z")),
        ("DateTimeBin", json!([time, "dd", 7]), json!("2021-01-07T00:00:00.0000000Z")),
        (
            "DateTimeBin",
            json!([time, "dd", 7, "1601-01-01T00:00:00.0000000"]),
            json!("2021-01-04T00:00:00.0000000Z"),
        ),
        ("DateTimeBin", json!([time, "dd", 7, "1600-12-31"]), json!(UNDEFINED)),
        ("DateTimeBin", json!(["1969-12-31T12:00:00Z", "dd"]), json!("1969-12-31T00:00:00.0000000Z")),
        (
            "DateTimeBin",
            json!(["2021-01-08T00:00:00.1234567Z", "ns", 1_000]),
            json!("2021-01-08T00:00:00.1234560Z"),
        ),
        ("DateTimeBin", json!([time, "mm"]), json!(UNDEFINED)),
        ("DateTimeBin", json!([time, "dd", 0]), json!(UNDEFINED)),
        ("DateTimeBin", json!([time, "dd", -1]), json!(UNDEFINED)),
        ("DateTimeBin", json!([time, "dd", i64::MAX]), json!("1970-01-01T00:00:00.0000000Z")),
    ]);
}

#[test]
fn a_time_is_written_by_a_pattern() {
    let time = "2024-10-05 14:40:20";
    let exact = "2009-06-01T00:05:03.6170000Z";
    check(&[
        ("DateTimeFormat", json!([time, "yyyyMMdd"]), json!("20241005")),
        ("DateTimeFormat", json!([time, "yyyy-MM-dd [HH:mm:ss]"]), json!("2024-10-05 [14:40:20]")),
        (
            "DateTimeFormat",
            json!([time, "To\\da\\y i\\s: yyyy-MM-ddTHH:mm:ss.fff"]),
            json!("Today is: 2024-10-05T14:40:20.000"),
        ),
        ("DateTimeFormat", json!([time, "ss.FFF"]), json!("20.")),
        ("DateTimeFormat", json!([time, "d.M.yy h:mm tt"]), json!("5.10.24 2:40 PM")),
        ("DateTimeFormat", json!([exact, "ddd dddd MMM MMMM"]), json!("Mon Monday Jun June")),
        (
            "DateTimeFormat",
            json!([exact, "hh H m s t f ff FFFFFFF fffffff"]),
            json!("12 0 5 3 A 6 61 617 6170000"),
        ),
        ("DateTimeFormat", json!([exact, ""]), json!("")),
        ("DateTimeFormat", json!([exact, "\\"]), json!(UNDEFINED)),
        ("DateTimeFormat", json!(["no", "yyyy"]), json!(UNDEFINED)),
    ]);
}

#[test]
fn a_time_is_read_strictly() {
    for (text, is_time) in [
        ("2023-03-06", true),
        ("2023-03-06Z", true),
        ("2023-03-06 15:29:00Z", true),
        ("2023-03-06T15:29:59", true),
        ("2023-03-06T15:29:59.9", true),
        ("2023-03-06T15:29:59.1234567Z", true),
        ("2023-03-06T15:29:59.12345678Z", false),
        ("2023-03-06T15:29:59.", false),
        ("2023-03-06T15:29", false),
        ("2023-03-06t15:29:59Z", false),
        ("2023-03-06T15:29:59+01:00", false),
        ("2023-3-6", false),
        ("2023-02-29", false),
        ("2024-02-29", true),
        ("0000-01-01", false),
        ("2023-03-06T24:00:00Z", false),
        ("2023-03-06T23:59:60Z", false),
        (" 2023-03-06", false),
        ("", false),
        ("２０２３-03-06", false),
    ] {
        assert_eq!(call("IS_DATETIME", &json!([text])), Some(Value::Bool(is_time)), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_time_survives_its_text(ticks in -621_355_968_000_000_000_i64..2_534_023_008_000_000_000) {
        if let Some(moment) = Moment::at(ticks) {
            prop_assert_eq!(Moment::parse(&moment.to_string()), Some(moment));
        }
    }
}
