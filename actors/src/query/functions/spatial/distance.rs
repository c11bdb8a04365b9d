//! The distance between two geometries.
//!
//! A search in two steps: the sphere, which is quick, says where the geometries come close, and the
//! ellipsoid, which is slow, then measures there. Between two shapes that do not meet the shortest way
//! starts at a corner of one of them, so corners are measured against edges.

use geo::{Coord, CoordsIter, Distance, Geodesic, Geometry, Haversine, Intersects, Line, Point};

use super::{MAX_PAIRS, edges_of};

/// By how much the sphere and the ellipsoid may disagree about which of two places is nearer.
const DISAGREEMENT: f64 = 1.02;
/// How many near places the ellipsoid measures.
const CANDIDATES: usize = 8;
/// Edges are looked at in pieces of at most so many degrees: the longest that are nearly straight.
const PIECE_DEGREES: f64 = 4.0;
/// Steps of the golden section: each leaves 0.62 of a piece, so the last leaves a millimetre.
const STEPS: usize = 48;
/// A full turn, in degrees.
const TURN: f64 = 360.0;

/// A corner and a piece of an edge that come this close on the sphere.
struct Candidate {
    metres: f64,
    corner: Point,
    piece: Line,
}

/// The shortest way between two geometries in metres, zero when they meet; `None` when finding it takes
/// more than [`MAX_PAIRS`] comparisons.
pub(super) fn distance(left: &Geometry, right: &Geometry) -> Option<f64> {
    if let (Geometry::Point(left), Geometry::Point(right)) = (left, right) {
        return Some(Geodesic.distance(*left, *right));
    }
    if left.intersects(right) {
        return Some(0.0);
    }
    let mut near = Vec::new();
    look(left, right, &mut near)?;
    look(right, left, &mut near)?;
    near.iter().map(|candidate| measure(candidate.corner, candidate.piece)).reduce(f64::min)
}

/// Keeps the corners of `corners` that come nearest to the edges, or lone points, of `edges`.
fn look(corners: &Geometry, edges: &Geometry, near: &mut Vec<Candidate>) -> Option<()> {
    let most = MAX_PAIRS / corners.coords_count().max(1);
    let pieces: Vec<Line> = edges_of(edges).flat_map(pieces).take(most + 1).collect();
    if pieces.len() > most {
        return None;
    }
    for corner in corners.coords_iter().map(Point) {
        for piece in &pieces {
            let metres = Haversine.distance(corner, Point(at(*piece, closest(corner, *piece))));
            keep(Candidate { metres, corner, piece: *piece }, near);
        }
    }
    Some(())
}

fn pieces(edge: Line) -> impl Iterator<Item = Line> {
    let count = (edge.dx().hypot(edge.dy()) / PIECE_DEGREES).ceil().max(1.0);
    // An edge is at most a few hundred degrees long.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to about 100")]
    let numbers = 0..count as u32;
    numbers.map(move |i| {
        let (from, to) = (f64::from(i) / count, f64::from(i + 1) / count);
        Line { start: at(edge, from), end: at(edge, to) }
    })
}

/// The point at a share of the way along an edge.
fn at(edge: Line, share: f64) -> Coord {
    if share >= 1.0 {
        return edge.end;
    }
    Coord { x: edge.start.x + edge.dx() * share, y: edge.start.y + edge.dy() * share }
}

/// Where on a short edge a point comes nearest, as on a plane in which degrees of longitude are as long
/// as they are there.
fn closest(point: Point, edge: Line) -> f64 {
    let width = ((edge.start.y + edge.end.y) / 2.0).to_radians().cos();
    let (dx, dy) = (edge.dx() * width, edge.dy());
    let length = dx * dx + dy * dy;
    if length == 0.0 {
        return 0.0;
    }
    let mut east = point.x() - edge.start.x;
    // The short way round.
    east -= TURN * (east / TURN).round();
    ((east * width * dx + (point.y() - edge.start.y) * dy) / length).clamp(0.0, 1.0)
}

/// Keeps a candidate when it may be the nearest, and forgets those that no longer may.
fn keep(new: Candidate, near: &mut Vec<Candidate>) {
    let best = near.first().map_or(f64::INFINITY, |first| first.metres);
    if new.metres > best * DISAGREEMENT {
        return;
    }
    let limit = new.metres.min(best) * DISAGREEMENT;
    let place = near.partition_point(|other| other.metres <= new.metres);
    near.insert(place, new);
    near.truncate(CANDIDATES);
    near.retain(|other| other.metres <= limit);
}

/// The distance of a point to an edge on the ellipsoid, by golden section.
fn measure(point: Point, edge: Line) -> f64 {
    let metres = |share: f64| Geodesic.distance(point, Point(at(edge, share)));
    let ends = metres(0.0).min(metres(1.0));
    if edge.start == edge.end {
        return ends;
    }
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut from, mut to) = (0.0, 1.0);
    let (mut left, mut right) = (1.0 - golden, golden);
    let (mut at_left, mut at_right) = (metres(left), metres(right));
    for _ in 0..STEPS {
        if at_left < at_right {
            (to, right, at_right) = (right, left, at_left);
            left = to - golden * (to - from);
            at_left = metres(left);
        } else {
            (from, left, at_left) = (left, right, at_right);
            right = from + golden * (to - from);
            at_right = metres(right);
        }
    }
    ends.min(at_left).min(at_right)
}
