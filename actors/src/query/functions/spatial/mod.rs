//! Functions of places on Earth, given as GeoJSON (RFC 7946) in longitude and latitude on WGS 84.
//!
//! As in the RFC, edges are straight in longitude and latitude, and a polygon is what its ring encloses,
//! whichever way round it goes. Distances are along the ellipsoid, in metres, and areas on it, in square
//! metres.
//!
//! Invariant: the work of one call is bounded by [`MAX_PAIRS`].

mod distance;
mod geojson;
#[cfg(test)]
mod tests;
mod within;

use geo::{CoordsIter, GeodesicArea, Geometry, Intersects, Line, LinesIter};
use serde_json::{Value, json};

use self::geojson::read;
use super::arguments::Arguments;
use super::{Context, Row, row};
use crate::query::value::from_number;

/// Functions of two geometries compare each point of one with each of the other, so this often at most.
const MAX_PAIRS: usize = 1_000_000;

pub(super) const ROWS: &[Row] = &[
    row("ST_AREA", (1, 1), |a, _| from_number(read(a.value(0)?).ok()?.geodesic_area_signed().abs())),
    row("ST_DISTANCE", (2, 2), |a, _| of_two(a, distance::distance)?.and_then(from_number)),
    row("ST_INTERSECTS", (2, 2), |a, _| of_two(a, |x, y| x.intersects(y)).map(Value::Bool)),
    row("ST_ISVALID", (1, 1), |a, _| Some(Value::Bool(read(a.value(0)?).is_ok()))),
    row("ST_ISVALIDDETAILED", (1, 1), is_valid_detailed),
    row("ST_WITHIN", (2, 2), |a, _| of_two(a, within::is_within).map(Value::Bool)),
];

/// Applies a function to two valid geometries; undefined when they have too many points together.
fn of_two<T>(arguments: &Arguments<'_>, function: fn(&Geometry, &Geometry) -> T) -> Option<T> {
    let (left, right) = (read(arguments.value(0)?).ok()?, read(arguments.value(1)?).ok()?);
    let pairs = left.coords_count() * right.coords_count();
    (pairs <= MAX_PAIRS).then(|| function(&left, &right))
}

fn is_valid_detailed(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    Some(match read(arguments.value(0)?) {
        Ok(_) => json!({"valid": true}),
        Err(invalid) => json!({"valid": false, "reason": invalid.to_string()}),
    })
}

/// The edges of a geometry; a lone point is an edge without a length.
fn edges_of(geometry: &Geometry) -> Box<dyn Iterator<Item = Line> + '_> {
    match geometry {
        Geometry::LineString(line) => Box::new(line.lines_iter()),
        Geometry::MultiLineString(lines) => Box::new(lines.lines_iter()),
        Geometry::Polygon(polygon) => Box::new(polygon.lines_iter()),
        Geometry::MultiPolygon(polygons) => Box::new(polygons.lines_iter()),
        Geometry::Point(_)
        | Geometry::MultiPoint(_)
        | Geometry::Line(_)
        | Geometry::Rect(_)
        | Geometry::Triangle(_)
        | Geometry::GeometryCollection(_) => {
            Box::new(geometry.coords_iter().map(|point| Line { start: point, end: point }))
        }
    }
}
