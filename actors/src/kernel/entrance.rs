//! The entrance before the places in which requests are worked on.
//!
//! Stands between admission and the [`Turnstile`], which decides and does not wait. Invariants: a place is given back
//! exactly once, when it is dropped; whoever goes away while waiting leaves no place behind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::clock::SharedClock;
use crate::model::ids::{Name, TenantId};
use crate::policy::permits::{Arrival, Arrived, Bounds, Next, Shed, Turnstile};

type State = Turnstile<TenantId, Name, oneshot::Sender<Place>>;

/// A bounded number of places. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Entrance(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    clock: SharedClock,
}

/// One place of a tenant, given back on drop.
#[derive(Debug)]
pub struct Place {
    /// `None` once it was given back.
    entrance: Option<Entrance>,
    tenant: TenantId,
}

/// Somebody who came and was not turned away.
#[derive(Debug)]
pub struct Entering(Step);

#[derive(Debug)]
enum Step {
    Inside(Place),
    Waits { turn: oneshot::Receiver<Place>, most: Duration },
}

impl Entrance {
    /// Nobody is inside yet.
    pub fn new(bounds: Bounds, clock: SharedClock) -> Self {
        Self(Arc::new(Inner { state: Mutex::new(Turnstile::new(bounds)), clock }))
    }

    /// Somebody comes.
    ///
    /// # Errors
    /// [`Shed`] when there is no place and no room to wait.
    pub fn enter(&self, who: Arrival<'_, TenantId, Name>) -> Result<Entering, Shed> {
        let (give, turn) = oneshot::channel();
        let now = self.0.clock.elapsed();
        let tenant = who.tenant.clone();
        let mut state = self.state();
        let entering = match state.arrive(who, now, give) {
            Arrived::Enters(_) => Ok(Entering(Step::Inside(self.place(tenant)))),
            Arrived::Waits(until) => Ok(Entering(Step::Waits { turn, most: until.saturating_sub(now) })),
            Arrived::TurnedAway(_, shed) => Err(shed),
        };
        drop(state);
        entering
    }

    /// Changes the bounds. Who is inside or waits stays.
    pub fn rebound(&self, bounds: Bounds) {
        self.state().rebound(bounds);
    }

    /// Places that are taken, and calls that wait.
    pub fn load(&self) -> (usize, usize) {
        self.state().load()
    }

    fn place(&self, tenant: TenantId) -> Place {
        Place { entrance: Some(self.clone()), tenant }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_out(&self, state: &mut State) {
        let now = self.0.clock.elapsed();
        while let Some(next) = state.next(now) {
            match next {
                // Who waits for it learns that there will be none.
                Next::TooLate(give) => drop(give),
                Next::Enters(tenant, give) => {
                    if let Err(mut place) = give.send(self.place(tenant)) {
                        // Gone meanwhile. Its drop would take the lock again.
                        place.entrance = None;
                        state.leave(&place.tenant);
                    }
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(entrance) = self.entrance.take() else { return };
        let mut state = entrance.state();
        state.leave(&self.tenant);
        entrance.hand_out(&mut state);
    }
}

impl Entering {
    /// The place, now or when it is its turn; `None` when the time to wait is over.
    pub async fn place(self) -> Option<Place> {
        match self.0 {
            Step::Inside(place) => Some(place),
            Step::Waits { turn, most } => tokio::time::timeout(most, turn).await.ok()?.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::clock::SystemClock;
    use crate::policy::permits::{Priority, Shedding};

    fn bounds(places: usize, wait: Duration) -> Bounds {
        let shedding = Shedding { normal_percent: 100, low_percent: 100 };
        Bounds { places, places_per_tenant: places, waiting: 8, waiting_per_tenant: 4, wait, shedding }
    }

    fn entrance(places: usize, wait: Duration) -> Entrance {
        Entrance::new(bounds(places, wait), SystemClock::shared())
    }

    fn come(entrance: &Entrance, tenant: &str) -> Result<Entering, Shed> {
        let (tenant, member) = (TenantId::new(tenant).unwrap(), Name::from("k"));
        entrance.enter(Arrival { tenant: &tenant, weight: 1, member: &member, priority: Priority::Normal })
    }

    #[actix::test]
    async fn whoever_waits_enters_when_a_place_comes_free() {
        let entrance = entrance(1, Duration::from_secs(60));
        let first = come(&entrance, "a").unwrap().place().await.unwrap();
        let second = come(&entrance, "b").unwrap();
        assert_eq!(entrance.load(), (1, 1));
        drop(first);
        let second = second.place().await.unwrap();
        assert_eq!(entrance.load(), (1, 0));
        drop(second);
        assert_eq!(entrance.load(), (0, 0));
    }

    #[actix::test]
    async fn whoever_waits_too_long_or_goes_away_leaves_no_place_behind() {
        let entrance = entrance(1, Duration::from_millis(5));
        let first = come(&entrance, "a").unwrap().place().await.unwrap();
        assert!(come(&entrance, "b").unwrap().place().await.is_none());
        let gone = come(&entrance, "c").unwrap();
        drop(gone);
        drop(first);
        assert_eq!(entrance.load().0, 0);
        assert!(come(&entrance, "d").unwrap().place().await.is_some());
    }

    #[test]
    fn no_more_wait_than_may() {
        let entrance = entrance(1, Duration::from_secs(60));
        let held: Vec<_> = (0..5).map(|_| come(&entrance, "a").unwrap()).collect();
        assert_eq!(come(&entrance, "a").unwrap_err(), Shed::TenantFull);
        assert!(come(&entrance, "b").is_ok());
        drop(held);
    }
}
