//! What is sold to whom: products, APIs, their limits and quotas, as one state of the configuration says.
//!
//! Stands between the settings and the decision about a call. Invariants: a book is never changed, only followed by
//! another one; counters that go by the same name in both go on counting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::keys::Scope;
use super::limits::{By, Facts, Limit, Limiter, Limiters};
use super::permits::Priority;
use super::quota::{Accounts, Exhausted, Quota, Receipt, Spent, take_all};
use super::rate::Ticks;
use crate::model::ids::Name;
use crate::model::time::Timestamp;

/// How a product is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyRule {
    /// By a key in a header.
    #[default]
    Header,
    /// By a key in a header or in the query, where logs and histories may show it.
    HeaderOrQuery,
    /// Without a key.
    None,
}

/// A quota and whose use of it is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRule {
    /// What its accounts go by, over changes of everything else, and what it is called in answers.
    pub name: Name,
    /// How much.
    pub quota: Quota,
    /// Whose use is counted together.
    pub by: By,
}

/// What a product sells, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProductRules {
    /// Names of its APIs.
    pub apis: BTreeSet<Name>,
    /// How it is opened.
    pub key: KeyRule,
    /// Whose token a caller must bring as well, by the name of the identity.
    pub identity: Option<Name>,
    /// Whether a new key waits for an approval.
    pub approval: bool,
    /// Most grants of one tenant that are not ended, if limited.
    pub grants_per_tenant: Option<usize>,
    /// How often.
    pub limits: Vec<Limit>,
    /// How much.
    pub quotas: Vec<QuotaRule>,
    /// Calls of one tenant that are worked on at once, if limited.
    pub concurrency: Option<usize>,
    /// The tenant's part of the places when they are short, by those of others; 0 counts as 1.
    pub weight: u32,
}

/// What holds for all calls of an API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiRules {
    /// Whether it may be called without a key, on the terms of no product.
    pub open: bool,
    /// How often, whoever calls.
    pub limits: Vec<Limit>,
    /// What holds for its operations, by name. Those that are not here have no rules of their own.
    pub operations: BTreeMap<Name, OperationRules>,
}

/// What holds for all calls of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRules {
    /// How often, whoever calls.
    pub limits: Vec<Limit>,
    /// How much it matters when places are short.
    pub priority: Priority,
}

/// On what terms somebody calls.
#[derive(Debug)]
pub struct Terms {
    /// The product, unless the key is of none.
    pub product: Option<Name>,
    /// What it says.
    pub rules: ProductRules,
    limiters: Vec<Arc<Limiter>>,
    quotas: Vec<Arc<Sold>>,
}

impl Terms {
    /// The header fields that its limits and quotas go by.
    pub fn headers(&self) -> impl Iterator<Item = &Name> {
        self.counted_by().filter_map(By::header)
    }

    /// The claims that its limits and quotas go by.
    pub fn claims(&self) -> impl Iterator<Item = &Name> {
        self.counted_by().filter_map(By::claim)
    }

    fn counted_by(&self) -> impl Iterator<Item = &By> {
        let limits = self.rules.limits.iter().map(|limit| &limit.by);
        limits.chain(self.rules.quotas.iter().map(|rule| &rule.by))
    }
}

/// A quota and what was used of it.
#[derive(Debug)]
pub struct Sold {
    /// What was bought.
    pub rule: QuotaRule,
    /// What was used.
    pub accounts: Arc<Accounts>,
}

/// Where the bytes of an answer are counted: what the quotas of a call counted before it was made.
#[derive(Debug, Default)]
pub struct Meter(Vec<(Arc<Sold>, Name, Receipt)>);

impl Meter {
    /// Counts a call by all quotas of these terms, or by none.
    ///
    /// # Errors
    /// The refusal that lasts longest, and its quota; nothing is counted.
    pub fn take(
        terms: &Terms,
        facts: &Facts<'_>,
        bytes: u64,
        now: Timestamp,
    ) -> Result<Self, (Name, Exhausted)> {
        let keyed = terms.quotas.iter().filter_map(|sold| Some((sold, sold.rule.by.key(facts)?)));
        let keyed: Vec<(&Arc<Sold>, Name)> = keyed.collect();
        let asked: Vec<_> =
            keyed.iter().map(|(sold, key)| (&*sold.accounts, &sold.rule.quota, key)).collect();
        match take_all(&asked, Spent::call(bytes), now) {
            Ok(taken) => {
                let taken = keyed.into_iter().zip(taken);
                Ok(Self(taken.map(|((sold, key), (_, receipt))| (sold.clone(), key, receipt)).collect()))
            }
            Err((place, exhausted)) => {
                let quota = keyed.get(place).map_or_else(|| "".into(), |(sold, _)| sold.rule.name.clone());
                Err((quota, exhausted))
            }
        }
    }

    /// Counts bytes that came to be known after the call was counted.
    pub fn note_bytes(&self, bytes: u64, now: Timestamp) {
        for (sold, key, _) in self.0.iter().filter(|(sold, _, _)| sold.rule.quota.bytes.is_some()) {
            sold.accounts.note(key, sold.rule.quota.period, Spent { calls: 0, bytes }, now);
        }
    }

    /// Uncounts the call, because something else refused it.
    pub fn give_back(self) {
        for (sold, key, receipt) in &self.0 {
            sold.accounts.give_back(key, *receipt);
        }
    }
}

/// What is sold, by one state of the configuration.
#[derive(Debug)]
pub struct Book {
    products: BTreeMap<Name, Arc<Terms>>,
    apis: BTreeMap<Name, Api>,
    /// The terms of keys that are of no product.
    none: Arc<Terms>,
    limiters: Limiters,
    quotas: BTreeMap<Name, Arc<Sold>>,
}

#[derive(Debug, Default)]
struct Api {
    open: bool,
    /// Products that open it without a key.
    products: Vec<Arc<Terms>>,
    limiters: Vec<Arc<Limiter>>,
    operations: BTreeMap<Name, (Vec<Arc<Limiter>>, Priority)>,
}

impl Book {
    /// The book of these rules, which goes on counting where `before` is.
    pub fn new(
        products: &BTreeMap<Name, ProductRules>,
        apis: &BTreeMap<Name, ApiRules>,
        max_keys: usize,
        ticks: &Ticks,
        before: Option<&Self>,
    ) -> Self {
        let of_apis = apis.values().flat_map(|api| {
            let operations = api.operations.values().flat_map(|operation| &operation.limits);
            api.limits.iter().chain(operations)
        });
        let all = products.values().flat_map(|product| &product.limits).chain(of_apis).cloned();
        let limiters = Limiters::new(all, max_keys, ticks, before.map(|before| &before.limiters));
        let mut quotas = BTreeMap::new();
        for rule in products.values().flat_map(|product| &product.quotas) {
            let old = before.and_then(|before| before.quotas.get(&rule.name));
            let old = old.filter(|old| old.rule.by == rule.by).map(|old| old.accounts.clone());
            let accounts = old.unwrap_or_else(|| Arc::new(Accounts::new(max_keys)));
            quotas.insert(rule.name.clone(), Arc::new(Sold { rule: rule.clone(), accounts }));
        }
        let named = |limits: &[Limit]| -> Vec<Arc<Limiter>> {
            limits.iter().filter_map(|limit| limiters.get(&limit.name).cloned()).collect()
        };
        let terms = |(name, rules): (&Name, &ProductRules)| {
            let of = rules.quotas.iter().filter_map(|rule| quotas.get(&rule.name).cloned());
            let terms = Terms {
                product: Some(name.clone()),
                rules: rules.clone(),
                limiters: named(&rules.limits),
                quotas: of.collect(),
            };
            (name.clone(), Arc::new(terms))
        };
        let sold: BTreeMap<Name, Arc<Terms>> = products.iter().map(terms).collect();
        let names: BTreeSet<&Name> =
            apis.keys().chain(products.values().flat_map(|product| &product.apis)).collect();
        let api = |name: &Name| {
            let rules = apis.get(name).cloned().unwrap_or_default();
            let open = sold
                .values()
                .filter(|terms| terms.rules.key == KeyRule::None && terms.rules.apis.contains(name));
            let operations = rules
                .operations
                .iter()
                .map(|(name, operation)| (name.clone(), (named(&operation.limits), operation.priority)));
            Api {
                open: rules.open,
                products: open.cloned().collect(),
                limiters: named(&rules.limits),
                operations: operations.collect(),
            }
        };
        let apis = names.into_iter().map(|name| (name.clone(), api(name))).collect();
        let none = Arc::new(Terms {
            product: None,
            rules: ProductRules::default(),
            limiters: Vec::new(),
            quotas: Vec::new(),
        });
        Self { products: sold, apis, none, limiters, quotas }
    }

    /// The terms of a key for an API, if it opens that.
    pub fn terms_of(&self, scope: &Scope, api: &Name) -> Option<Arc<Terms>> {
        match scope {
            Scope::Product(product) => {
                self.products.get(product).filter(|terms| terms.rules.apis.contains(api)).cloned()
            }
            Scope::Api(name) => (name == api).then(|| self.none.clone()),
            Scope::AllApis | Scope::AllAccess => Some(self.none.clone()),
        }
    }

    /// The terms on which an API may be called without a key, none when it may not.
    pub fn open_terms(&self, api: &Name) -> Vec<Arc<Terms>> {
        let Some(api) = self.apis.get(api) else { return Vec::new() };
        let none = api.open.then(|| self.none.clone());
        api.products.iter().cloned().chain(none).collect()
    }

    /// The rules of a product.
    pub fn product(&self, name: &str) -> Option<&ProductRules> {
        self.products.get(name).map(|terms| &terms.rules)
    }

    /// Whether there is an API of this name.
    pub fn has_api(&self, name: &str) -> bool {
        self.apis.contains_key(name)
    }

    /// The limits of a call in the order from what is broad to what is narrow, and how much it matters.
    pub fn limits(&self, terms: &Terms, (api, operation): (&Name, &Name)) -> (Vec<Arc<Limiter>>, Priority) {
        let mut all = terms.limiters.clone();
        let mut priority = Priority::Normal;
        if let Some(api) = self.apis.get(api) {
            all.extend(api.limiters.iter().cloned());
            if let Some((limiters, own)) = api.operations.get(operation) {
                all.extend(limiters.iter().cloned());
                priority = *own;
            }
        }
        (all, priority)
    }

    /// All limits.
    pub fn limiters(&self) -> &Limiters {
        &self.limiters
    }

    /// All quotas.
    pub fn quotas(&self) -> impl Iterator<Item = &Arc<Sold>> {
        self.quotas.values()
    }
}
