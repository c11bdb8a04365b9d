//! Whether one geometry lies within another: all of it in there, and not all of it on the boundary.
//!
//! Every edge is cut where it meets an edge of the other geometry. A piece then lies wholly inside,
//! wholly outside, or along an edge, so its middle decides for it. Rings that cross themselves, which the
//! relations of `geo` do not bear, are no trouble to this.

use geo::coordinate_position::CoordPos;
use geo::line_intersection::{LineIntersection, line_intersection};
use geo::{Coord, CoordinatePosition, CoordsIter, Geometry, HasDimensions, InteriorPoint, Line};

use super::edges_of;

/// A share of an edge that is too short to have a middle.
const TINY: f64 = 1e-9;

/// An edge, cut where it meets others.
struct Cut {
    edge: Line,
    /// Where pieces end, as shares of the way, from zero to one.
    ends: Vec<f64>,
    /// The parts that run along another edge.
    along: Vec<(f64, f64)>,
}

pub(super) fn is_within(inner: &Geometry, outer: &Geometry) -> bool {
    let inner_edges = long_edges(inner);
    if inner_edges.is_empty() {
        return points_are_within(inner, outer);
    }
    let outer_edges = long_edges(outer);
    if !is_area(outer) {
        // A line lies within a line when it runs along it all the way.
        let runs_along = |edge: &Line| Cut::new(*edge, &outer_edges).free().next().is_none();
        return !is_area(inner) && inner_edges.iter().all(runs_along);
    }
    // What has an area and lies in there is not all on the boundary.
    let mut is_inside = is_area(inner);
    for edge in &inner_edges {
        for middle in Cut::new(*edge, &outer_edges).free() {
            match outer.coordinate_position(&middle) {
                CoordPos::Inside => is_inside = true,
                CoordPos::OnBoundary => {}
                CoordPos::Outside => return false,
            }
        }
    }
    // With its boundary in there, an area still has to be free of holes of the other one.
    let cuts_through = |edge: &Line| {
        let cut = Cut::new(*edge, &inner_edges);
        cut.free().any(|middle| inner.coordinate_position(&middle) == CoordPos::Inside)
    };
    is_inside && !(is_area(inner) && (fills_a_hole(inner, outer) || outer_edges.iter().any(cuts_through)))
}

/// Whether an area whose boundary is not outside has its inside there: it is then as large as a hole.
fn fills_a_hole(inner: &Geometry, outer: &Geometry) -> bool {
    let polygons = match inner {
        Geometry::Polygon(polygon) => std::slice::from_ref(polygon),
        Geometry::MultiPolygon(polygons) => polygons.0.as_slice(),
        Geometry::Point(_)
        | Geometry::MultiPoint(_)
        | Geometry::Line(_)
        | Geometry::LineString(_)
        | Geometry::MultiLineString(_)
        | Geometry::Rect(_)
        | Geometry::Triangle(_)
        | Geometry::GeometryCollection(_) => &[],
    };
    let mut insides = polygons.iter().filter_map(InteriorPoint::interior_point);
    insides.any(|point| outer.coordinate_position(&point.0) == CoordPos::Outside)
}

fn points_are_within(inner: &Geometry, outer: &Geometry) -> bool {
    let mut is_inside = false;
    for point in inner.coords_iter() {
        match outer.coordinate_position(&point) {
            CoordPos::Inside => is_inside = true,
            CoordPos::OnBoundary => {}
            CoordPos::Outside => return false,
        }
    }
    is_inside
}

fn is_area(geometry: &Geometry) -> bool {
    geometry.dimensions() == geo::dimensions::Dimensions::TwoDimensional
}

fn long_edges(geometry: &Geometry) -> Vec<Line> {
    edges_of(geometry).filter(|edge| edge.start != edge.end).collect()
}

impl Cut {
    fn new(edge: Line, others: &[Line]) -> Self {
        let (mut ends, mut along) = (vec![0.0, 1.0], Vec::new());
        for other in others {
            match line_intersection(edge, *other) {
                None => {}
                Some(LineIntersection::SinglePoint { intersection, .. }) => {
                    ends.push(share(edge, intersection));
                }
                Some(LineIntersection::Collinear { intersection }) => {
                    let (from, to) = (share(edge, intersection.start), share(edge, intersection.end));
                    ends.extend([from, to]);
                    along.push((from.min(to), from.max(to)));
                }
            }
        }
        ends.sort_unstable_by(f64::total_cmp);
        Self { edge, ends, along }
    }

    /// The middles of the pieces that run along no other edge.
    fn free(&self) -> impl Iterator<Item = Coord> + '_ {
        let pieces = self.ends.iter().zip(self.ends.iter().skip(1));
        pieces.filter(|(from, to)| **to - **from > TINY).map(|(from, to)| (from + to) / 2.0).filter_map(
            |middle| {
                let is_free = !self.along.iter().any(|(from, to)| (*from..=*to).contains(&middle));
                is_free.then(|| self.edge.start + self.edge.delta() * middle)
            },
        )
    }
}

/// How far along an edge a point on it lies, from zero to one.
fn share(edge: Line, point: Coord) -> f64 {
    let (delta, way) = (edge.delta(), point - edge.start);
    let share = if delta.x.abs() > delta.y.abs() { way.x / delta.x } else { way.y / delta.y };
    share.clamp(0.0, 1.0)
}
