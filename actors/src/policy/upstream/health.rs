//! Whether a server is well, by what it answers to probes.

/// How many probes decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthRules {
    /// Good probes in a row after which an ill server is well.
    pub healthy: u32,
    /// Bad probes in a row after which a well server is ill.
    pub unhealthy: u32,
}

/// What probes have told so far. A server counts as well until they say otherwise, so that a start waits for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    well: bool,
    /// Probes in a row that speak against `well`.
    against: u32,
}

impl Default for Vitals {
    fn default() -> Self {
        Self { well: true, against: 0 }
    }
}

impl Vitals {
    /// Whether it may be asked.
    pub fn is_well(&self) -> bool {
        self.well
    }

    /// Takes a probe into account; says whether it changed the mind.
    pub fn record(&mut self, rules: HealthRules, good: bool) -> bool {
        if good == self.well {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.well { rules.unhealthy } else { rules.healthy };
        if self.against < needed {
            return false;
        }
        *self = Self { well: good, against: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_in_a_row_change_the_mind() {
        let rules = HealthRules { healthy: 2, unhealthy: 3 };
        let mut vitals = Vitals::default();
        for (good, changed, well) in [
            (false, false, true),
            (false, false, true),
            (true, false, true),
            (false, false, true),
            (false, false, true),
            (false, true, false),
            (false, false, false),
            (true, false, false),
            (false, false, false),
            (true, false, false),
            (true, true, true),
            (true, false, true),
        ] {
            assert_eq!((vitals.record(rules, good), vitals.is_well()), (changed, well));
        }
    }

    #[test]
    fn rules_of_one_follow_every_probe() {
        let rules = HealthRules { healthy: 1, unhealthy: 1 };
        let mut vitals = Vitals::default();
        for good in [false, true, false, false, true] {
            vitals.record(rules, good);
            assert_eq!(vitals.is_well(), good);
        }
    }
}
