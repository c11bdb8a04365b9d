//! Places and what is known of them.

use std::f64::consts::PI;

use geo::{Area, Geometry, Polygon, Relate, Validation};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::geojson::{MAX_POINTS, read};
use super::within::is_within;
use crate::query::functions::tests::{UNDEFINED, call, check, places};

fn point(x: f64, y: f64) -> Value {
    json!({"type": "Point", "coordinates": [x, y]})
}

/// A box, counterclockwise.
fn square(west: f64, south: f64, east: f64, north: f64) -> Value {
    let ring = [[west, south], [east, south], [east, north], [west, north], [west, south]];
    json!({"type": "Polygon", "coordinates": [ring]})
}

fn line(points: &[[f64; 2]]) -> Value {
    json!({"type": "LineString", "coordinates": points})
}

fn distance(left: &Value, right: &Value) -> f64 {
    let there = call("ST_DISTANCE", &json!([left, right])).unwrap().as_f64().unwrap();
    let back = call("ST_DISTANCE", &json!([right, left])).unwrap().as_f64().unwrap();
    assert!((there - back).abs() < 1e-3, "{there} {back}");
    there
}

fn near(found: f64, expected: f64, by: f64) {
    assert!((found - expected).abs() <= by, "{found} is not {expected}");
}

#[test]
fn distances_are_those_of_the_ellipsoid() {
    let here = point(-122.117_581_139_535_35, 47.669_010_870_061_31);
    let there = point(-122.128_268_223_046_72, 47.639_802_393_357_18);
    near(distance(&here, &there), 3_345.269_817_267_368, 1e-4);
    let far = point(-96.843_686_647_659_94, 46.812_977_943_146_63);
    // The service measures along another curve through the same points, which here is 8 cm longer.
    near(distance(&here, &far), 1_907_438.421_299_902, 0.1);
    assert!(distance(&here, &here) < 1e-9);
}

#[test]
fn a_distance_goes_to_the_nearest_place_of_a_shape() {
    let box_ = square(10.0, 50.0, 11.0, 51.0);
    let inside = point(10.5, 50.5);
    assert_eq!(distance(&inside, &box_).to_string(), "0");
    assert_eq!(distance(&point(10.0, 50.5), &box_).to_string(), "0");
    // East of the box, the nearest place is not a corner, and its latitude is nearly the same.
    let east = distance(&point(11.5, 50.5), &box_);
    near(east, distance(&point(11.5, 50.5), &point(11.0, 50.502)), 1.0);
    // The brute-force search along the edge agrees.
    let brute = (0..=2_000).map(|i| 50.0 + f64::from(i) / 2_000.0);
    let brute = brute.map(|y| distance(&point(11.5, 50.5), &point(11.0, y))).fold(f64::INFINITY, f64::min);
    near(east, brute, 0.1);
    // A hole is outside.
    let mut holed = box_.clone();
    let hole = json!([[10.2, 50.2], [10.2, 50.8], [10.8, 50.8], [10.8, 50.2], [10.2, 50.2]]);
    holed["coordinates"].as_array_mut().unwrap().push(hole);
    near(distance(&inside, &holed), distance(&inside, &line(&[[10.8, 50.2], [10.8, 50.8]])), 1e-3);
    assert!(distance(&inside, &holed) > 20_000.0);
    // Across the line where the day changes, the way is short.
    near(distance(&point(179.5, 0.0), &line(&[[-179.5, -1.0], [-179.5, 1.0]])), 111_319.49, 0.1);
    near(distance(&square(0.0, 0.0, 1.0, 1.0), &square(2.0, 0.0, 3.0, 1.0)), 111_302.65, 0.1);
    let points = json!({"type": "MultiPoint", "coordinates": [[0, 0], [5, 0]]});
    near(distance(&points, &point(5.0, 1.0)), distance(&point(5.0, 0.0), &point(5.0, 1.0)), 1e-6);
}

#[test]
fn areas_are_those_of_the_ellipsoid_whichever_way_the_ring_goes() {
    let area = |shape: &Value| call("ST_AREA", &json!([shape])).unwrap().as_f64().unwrap();
    near(area(&square(31.8, -5.0, 32.0, -4.7)), 735_970_283.052_261_4, 10.0);
    let mut turned = square(31.8, -5.0, 32.0, -4.7);
    turned["coordinates"][0].as_array_mut().unwrap().reverse();
    near(area(&turned), area(&square(31.8, -5.0, 32.0, -4.7)), 1.0);
    let earth = 510_065_621_724_089.0;
    near(area(&square(-90.0, -90.0, 90.0, 90.0)), earth / 2.0, earth * PI / 1e6);
    assert_eq!(area(&point(1.0, 1.0)).to_string(), "0");
    assert_eq!(area(&line(&[[0.0, 0.0], [1.0, 1.0]])).to_string(), "0");
}

#[test]
fn shapes_lie_within_and_meet_each_other() {
    let (small, large, apart) =
        (square(1.0, 1.0, 2.0, 2.0), square(0.0, 0.0, 3.0, 3.0), square(5.0, 5.0, 6.0, 6.0));
    let crossing = line(&[[-1.0, 1.5], [4.0, 1.5]]);
    let both = json!({"type": "MultiPolygon", "coordinates":
        [apart["coordinates"], large["coordinates"]]});
    let mut holed = large.clone();
    let hole = json!([[1, 1], [1, 2], [2, 2], [2, 1], [1, 1]]);
    holed["coordinates"].as_array_mut().unwrap().push(hole);
    for (left, right, within, meet) in [
        (&small, &large, true, true),
        (&large, &small, false, true),
        (&large, &large, true, true),
        (&small, &apart, false, false),
        (&crossing, &large, false, true),
        (&line(&[[1.0, 1.0], [2.0, 2.5]]), &large, true, true),
        (&point(1.5, 1.5), &small, true, true),
        (&point(1.0, 1.5), &small, false, true),
        (&point(9.0, 9.0), &small, false, false),
        (&small, &both, true, true),
        (&point(0.0, 1.5), &crossing, true, true),
        (&line(&[[1.0, 1.0], [2.0, 1.0]]), &small, false, true),
        (&line(&[[0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]), &crossing, true, true),
        (&line(&[[0.5, 1.5], [5.0, 1.5]]), &crossing, false, true),
        (&crossing, &point(0.0, 1.5), false, true),
        (&small, &crossing, false, true),
        (&square(0.5, 0.5, 2.5, 2.5), &holed, false, true),
        (&square(1.2, 1.2, 1.8, 1.8), &holed, false, false),
        (&square(0.2, 0.2, 0.8, 2.8), &holed, true, true),
        (&holed, &large, true, true),
        (&small, &holed, false, true),
        (&large, &holed, false, true),
        (&line(&[[1.0, 1.5], [2.0, 1.5]]), &holed, false, true),
    ] {
        let arguments = json!([left, right]);
        assert_eq!(call("ST_WITHIN", &arguments), Some(json!(within)), "{arguments}");
        assert_eq!(call("ST_INTERSECTS", &arguments), Some(json!(meet)), "{arguments}");
    }
    let road = json!([
        [-122.136_936_952_858_55, 47.649_960_656_210_03],
        [-122.135_166_265_651_6, 47.646_278_633_187_31],
        [-122.134_882_955_698_63, 47.646_326_350_048_696],
        [-122.136_618_229_161_3, 47.650_016_321_952_904],
        [-122.136_936_952_858_55, 47.649_960_656_210_03]
    ]);
    let campus = square(-122.140_3, 47.646_2, -122.132_5, 47.649_4);
    let road = json!({"type": "Polygon", "coordinates": [road]});
    assert_eq!(call("ST_INTERSECTS", &json!([road, campus])), Some(json!(true)));
    assert_eq!(call("ST_WITHIN", &json!([road, campus])), Some(json!(false)));
}

#[test]
fn an_invalid_geometry_says_why_and_is_undefined_elsewhere() {
    let of = |kind: &str, coordinates: Value| json!({"type": kind, "coordinates": coordinates});
    let valid = point(-84.388_761_943_453_23, 33.756_827_843_063_48);
    check(&[
        ("ST_ISVALID", json!([valid]), json!(true)),
        ("ST_ISVALIDDETAILED", json!([valid]), json!({"valid": true})),
        ("ST_ISVALID", json!([UNDEFINED]), json!(UNDEFINED)),
        ("ST_ISVALIDDETAILED", json!([UNDEFINED]), json!(UNDEFINED)),
        ("ST_ISVALID", json!([of("Point", json!([1, 2, 30_000]))]), json!(true)),
    ]);
    let open = json!([[[31.8, -5], [31.8, -4.7], [32, -4.7], [32, -5]]]);
    let points: Vec<_> = (0..=MAX_POINTS).map(|_| json!([0, 0])).collect();
    for (invalid, reason) in [
        (
            point(133.756_827_843_063_5, -184.388_761_943_453_23),
            "Latitude values must be between -90 and 90 degrees.",
        ),
        (point(-180.1, 0.0), "Longitude values must be between -180 and 180 degrees."),
        (of("Polygon", open), "Ring number 1 does not end where it starts."),
        (of("Polygon", json!([[[0, 0], [1, 1], [0, 0]]])), "Ring number 1 needs at least 4 positions."),
        (of("LineString", json!([[0, 0]])), "A line needs at least 2 positions."),
        (of("MultiPoint", json!([])), "The geometry has nothing in it."),
        (of("Polygon", json!([])), "The geometry has nothing in it."),
        (of("Point", json!(["1", 2])), "A position is an array of a longitude and a latitude"),
        (of("Point", json!([1])), "A position is an array of a longitude and a latitude"),
        (of("MultiPoint", json!(points)), "The geometry has more than 10000 positions."),
        (of("Circle", json!([0, 0])), "A geometry is an object with a type"),
        (json!("POINT(1 1)"), "A geometry is an object with a type"),
        (json!(null), "A geometry is an object with a type"),
    ] {
        assert_eq!(call("ST_ISVALID", &json!([invalid])), Some(json!(false)));
        let detailed = call("ST_ISVALIDDETAILED", &json!([invalid])).unwrap();
        assert_eq!(detailed["valid"], json!(false));
        let found = detailed["reason"].as_str().unwrap();
        assert!(found.starts_with(reason), "{found}");
        assert_eq!(call("ST_AREA", &json!([invalid])), None);
        for name in ["ST_DISTANCE", "ST_WITHIN", "ST_INTERSECTS"] {
            assert_eq!(call(name, &json!([valid, invalid])), None);
            assert_eq!(call(name, &json!([invalid, valid])), None);
        }
    }
}

#[test]
fn too_many_points_together_are_undefined() {
    let zigzag = |latitude: f64| {
        let points: Vec<_> = (0..2_000).map(|i| [f64::from(i) / 1_000.0, latitude]).collect();
        line(&points)
    };
    for name in ["ST_DISTANCE", "ST_WITHIN", "ST_INTERSECTS"] {
        assert_eq!(call(name, &json!([zigzag(0.0), zigzag(1.0)])), None);
        assert!(call(name, &json!([zigzag(0.0), point(1.0, 1.0)])).is_some());
    }
}

/// The polygons of a geometry, without their holes.
fn exteriors(geometry: &Geometry) -> Vec<Polygon> {
    let polygons = if let Geometry::MultiPolygon(polygons) = geometry {
        polygons.0.clone()
    } else {
        Polygon::try_from(geometry.clone()).into_iter().collect()
    };
    polygons.into_iter().map(|polygon| Polygon::new(polygon.exterior().clone(), vec![])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn geometries_that_meet_have_no_distance(left in places(), right in places()) {
        let ask = |name: &str| call(name, &json!([left, right]));
        let meet = ask("ST_INTERSECTS");
        let metres = ask("ST_DISTANCE").and_then(|metres| metres.as_f64());
        prop_assert_eq!(meet.is_some(), metres.is_some());
        prop_assert_eq!(meet.is_some(), ask("ST_WITHIN").is_some());
        if meet == Some(json!(true)) {
            prop_assert_eq!(metres, Some(0.0));
        }
    }
    /// Only valid geometries have the relations of the standard. `geo` takes flat polygons with a hole for
    /// valid, and does not agree with itself about where lines end, so both are left out.
    #[test]
    fn within_is_the_relation_of_the_standard(left in places(), right in places()) {
        let (left, right) = (read(&left).unwrap_or(read(&point(0.0, 0.0)).unwrap()), read(&right));
        let Ok(right) = right else { return Ok(()) };
        let flat = |polygon: &Polygon| polygon.unsigned_area() == 0.0;
        let is_asked = !exteriors(&right).is_empty()
            && !exteriors(&left).iter().chain(&exteriors(&right)).any(flat);
        if is_asked && left.is_valid() && right.is_valid() {
            prop_assert_eq!(is_within(&left, &right), left.relate(&right).is_within());
        }
    }
}
