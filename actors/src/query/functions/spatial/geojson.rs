//! Reads GeoJSON geometries (RFC 7946, section 3.1).
//!
//! Invariant: what was read has positions on Earth, closed rings, and no more than [`MAX_POINTS`].

use geo::{Coord, Geometry, LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon};
use serde_json::Value;
use thiserror::Error;

use crate::query::value::number;

/// The most points that a geometry may have.
pub(super) const MAX_POINTS: usize = 10_000;

const MAX_LONGITUDE: f64 = 180.0;
const MAX_LATITUDE: f64 = 90.0;
/// A line goes somewhere.
const LINE_POINTS: usize = 2;
/// A ring has three corners, and its first one again.
const RING_POINTS: usize = 4;
/// Longitude and latitude, and perhaps a height, which is not used.
const POSITION: std::ops::RangeInclusive<usize> = 2..=3;

/// Why a value is no geometry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Invalid {
    #[error(
        "A geometry is an object with a type (Point, MultiPoint, LineString, MultiLineString, Polygon or \
         MultiPolygon) and coordinates."
    )]
    Shape,
    #[error("A position is an array of a longitude and a latitude, and perhaps a height.")]
    Position,
    #[error("Longitude values must be between -180 and 180 degrees.")]
    Longitude,
    #[error("Latitude values must be between -90 and 90 degrees.")]
    Latitude,
    #[error("A line needs at least {LINE_POINTS} positions.")]
    ShortLine,
    #[error("Ring number {0} needs at least {RING_POINTS} positions.")]
    ShortRing(usize),
    #[error("Ring number {0} does not end where it starts.")]
    OpenRing(usize),
    #[error("The geometry has nothing in it.")]
    Empty,
    #[error("The geometry has more than {MAX_POINTS} positions.")]
    TooManyPoints,
}

/// Reads a geometry, or says what is wrong with it.
pub(super) fn read(value: &Value) -> Result<Geometry, Invalid> {
    let object = value.as_object().ok_or(Invalid::Shape)?;
    let kind = object.get("type").and_then(Value::as_str).ok_or(Invalid::Shape)?;
    let coordinates = object.get("coordinates").ok_or(Invalid::Shape)?;
    let mut reader = Reader { left: MAX_POINTS };
    Ok(match kind {
        "Point" => Geometry::Point(Point(reader.position(coordinates)?)),
        "MultiPoint" => {
            let points = reader.each(coordinates, |reader, one| reader.position(one).map(Point))?;
            Geometry::MultiPoint(MultiPoint(points))
        }
        "LineString" => Geometry::LineString(reader.line(coordinates)?),
        "MultiLineString" => {
            Geometry::MultiLineString(MultiLineString(reader.each(coordinates, Reader::line)?))
        }
        "Polygon" => Geometry::Polygon(reader.polygon(coordinates)?),
        "MultiPolygon" => Geometry::MultiPolygon(MultiPolygon(reader.each(coordinates, Reader::polygon)?)),
        _ => return Err(Invalid::Shape),
    })
}

/// Reads coordinates until there are too many.
struct Reader {
    left: usize,
}

impl Reader {
    /// Reads each element of an array that is not empty.
    fn each<T>(
        &mut self,
        value: &Value,
        one: fn(&mut Self, &Value) -> Result<T, Invalid>,
    ) -> Result<Vec<T>, Invalid> {
        let items = value.as_array().ok_or(Invalid::Shape)?;
        if items.is_empty() {
            return Err(Invalid::Empty);
        }
        items.iter().map(|item| one(self, item)).collect()
    }

    fn position(&mut self, value: &Value) -> Result<Coord, Invalid> {
        self.left = self.left.checked_sub(1).ok_or(Invalid::TooManyPoints)?;
        let items = value.as_array().ok_or(Invalid::Position)?;
        let numbers: Option<Vec<f64>> = items.iter().map(number).collect();
        let numbers = numbers.filter(|numbers| POSITION.contains(&numbers.len())).ok_or(Invalid::Position)?;
        let [x, y, ..] = *numbers.as_slice() else { return Err(Invalid::Position) };
        if x.abs() > MAX_LONGITUDE {
            return Err(Invalid::Longitude);
        }
        if y.abs() > MAX_LATITUDE {
            return Err(Invalid::Latitude);
        }
        Ok(Coord { x, y })
    }

    fn line(&mut self, value: &Value) -> Result<LineString, Invalid> {
        let line = self.each(value, Self::position)?;
        if line.len() < LINE_POINTS { Err(Invalid::ShortLine) } else { Ok(LineString(line)) }
    }

    fn polygon(&mut self, value: &Value) -> Result<Polygon, Invalid> {
        let rings = self.each(value, |reader, ring| reader.each(ring, Self::position))?;
        for (i, ring) in rings.iter().enumerate() {
            if ring.len() < RING_POINTS {
                return Err(Invalid::ShortRing(i + 1));
            }
            if ring.first() != ring.last() {
                return Err(Invalid::OpenRing(i + 1));
            }
        }
        let mut rings = rings.into_iter().map(LineString);
        let exterior = rings.next().ok_or(Invalid::Empty)?;
        Ok(Polygon::new(exterior, rings.collect()))
    }
}
