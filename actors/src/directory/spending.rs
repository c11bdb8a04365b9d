//! What is spent in each container, and whether there is anything left.
//!
//! Stands between an operation and its start. An operation is admitted while its container and its
//! partition have something left, and charged when its cost is known; so a budget may be overdrawn by
//! what was under way, and is repaid before anything else is admitted.

use std::collections::BTreeMap;
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::kernel::clock::SharedClock;
use crate::model::address::EncodedPartition;
use crate::model::ids::Name;
use crate::policy::charge::RequestUnits;
use crate::policy::container::{Catalog, Container};
use crate::policy::throughput::{Bucket, Hot, HotList, Meter, Reading, RetryAfter, Throughput};

/// Partitions whose spending is remembered, for each container. One that is forgotten begins anew.
const PARTITIONS: usize = 16_384;

/// The account of one container.
#[derive(Debug)]
pub struct Account {
    budget: Option<Budget>,
    meter: Meter,
    hot: HotList,
    clock: SharedClock,
}

#[derive(Debug)]
struct Budget {
    throughput: Throughput,
    container: Bucket,
    partitions: Cache<EncodedPartition, Arc<Bucket>>,
}

impl Account {
    fn new(container: &Container, clock: SharedClock) -> Self {
        let budget = container.throughput.map(|throughput| Budget {
            throughput,
            container: Bucket::new(throughput.max()),
            partitions: Cache::new(PARTITIONS),
        });
        Self { budget, meter: Meter::default(), hot: HotList::default(), clock }
    }

    /// Whether an operation may start: in a partition, or over several.
    ///
    /// # Errors
    /// [`RetryAfter`] when container or partition have spent their budget; nothing was done.
    pub fn admit(&self, partition: Option<&EncodedPartition>) -> Result<(), RetryAfter> {
        self.admit_after(partition, RequestUnits::ZERO)
    }

    /// The same for an operation behind others of the same caller, which are under way and will cost at
    /// least so much.
    ///
    /// # Errors
    /// [`RetryAfter`] when nothing will be left after them; nothing was done.
    pub fn admit_after(
        &self,
        partition: Option<&EncodedPartition>,
        under_way: RequestUnits,
    ) -> Result<(), RetryAfter> {
        let Some(budget) = &self.budget else { return Ok(()) };
        let now = self.clock.elapsed();
        let of_partition = partition.and_then(|partition| budget.partitions.get(partition));
        let open = budget.container.check_after(now, under_way);
        let open =
            open.and_then(|()| of_partition.map_or(Ok(()), |bucket| bucket.check_after(now, under_way)));
        if open.is_err() {
            self.meter.note_throttled();
            if let Some(partition) = partition {
                self.hot.note_throttled(partition, now);
            }
        }
        open
    }

    /// Notes what an operation cost.
    pub fn charge(&self, partition: Option<&EncodedPartition>, cost: RequestUnits) {
        let now = self.clock.elapsed();
        self.meter.note(now, cost);
        if let Some(partition) = partition {
            self.hot.note(partition, cost, now);
        }
        let Some(budget) = &self.budget else { return };
        budget.container.charge(now, cost);
        if let Some(partition) = partition {
            let make =
                || Ok::<_, std::convert::Infallible>(Arc::new(Bucket::new(budget.throughput.partition())));
            let Ok(bucket) = budget.partitions.get_or_insert_with(partition, make);
            bucket.charge(now, cost);
        }
    }

    /// What was used until now.
    pub fn reading(&self) -> Reading {
        let throughput = self.budget.as_ref().map_or(Throughput::UNLIMITED, |budget| budget.throughput);
        self.meter.reading(self.clock.elapsed(), throughput)
    }

    /// The busiest partitions, the busiest first.
    pub fn hottest(&self, count: usize) -> Vec<Hot> {
        self.hot.top(count, self.clock.elapsed())
    }
}

/// The accounts of all containers.
#[derive(Debug, Clone)]
pub(super) struct Accounts {
    by_name: Arc<BTreeMap<Name, Arc<Account>>>,
    others: Arc<Account>,
}

impl Accounts {
    pub(super) fn new(catalog: &Catalog, clock: &SharedClock) -> Self {
        let account = |container: &Container| Arc::new(Account::new(container, clock.clone()));
        let by_name = catalog.iter().map(|container| (container.name.clone(), account(container)));
        let others =
            Account { budget: None, meter: Meter::default(), hot: HotList::default(), clock: clock.clone() };
        Self { by_name: Arc::new(by_name.collect()), others: Arc::new(others) }
    }

    pub(super) fn of(&self, container: &str) -> &Arc<Account> {
        self.by_name.get(container).unwrap_or(&self.others)
    }
}
